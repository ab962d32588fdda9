"""POST /v1/rerank and /v2/rerank, as Cohere, Jina, vLLM and Infinity have them.

Their requests are the same but for a few options, and a client of one ignores the fields of the
others in a reply. So one reply serves them all, and only errors differ.
"""

from __future__ import annotations

import uuid
from typing import Any

from crossbench.serving.http.fields import Fields, strings
from crossbench.serving.http.work import Form, Work, ranked, refuse, relevances, score_list
from crossbench.serving.limits import RequestLimits
from crossbench.serving.service import Answer, ModelService


def rerank(fields: Fields, limits: RequestLimits, api_version: str) -> Work:
    """Read {model, query, documents, top_n, return_documents}, a document {"text": …} or a text.

    `raw_scores` (Infinity) and `use_activation` (vLLM) choose the logits instead of 0 to 1.
    """
    query, documents = fields.text("query"), fields.array("documents")
    top_n = fields.count("top_n", least=0) or None  # 0 is vLLM's default, and means all
    return_documents = fields.flag("return_documents", False)
    raw = fields.flag("raw_scores", False) or not fields.flag("use_activation", True)
    refuse(fields, {"rank_fields": (["text"],), "truncate_prompt_tokens": (-1,)})

    def reply(service: ModelService, answer: Answer) -> Any:
        scores = answer.logits.tolist() if raw else relevances(service, answer)
        results: list[dict[str, Any]] = [
            {"index": at, "relevance_score": score} for at, score in ranked(answer, scores, top_n)
        ]
        if return_documents:
            texts = strings(documents, "documents", objects=True)
            for result in results:
                result["document"] = {"text": texts[result["index"]]}
        return {
            "id": str(uuid.uuid4()),
            "object": "list",
            "model": service.model.name,
            "results": results,
            "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
            "meta": {
                "api_version": {"version": api_version},
                "tokens": {"input_tokens": answer.tokens},
            },
        }

    return Work(
        model=fields.optional_text("model"),
        count=len(documents),
        items="documents",
        compute=score_list(query, documents, limits, objects=True),
        reply=reply,
        truncates=fields.flag("truncation", True),  # Jina's and Voyage's
    )


def version_1(fields: Fields, limits: RequestLimits) -> Work:
    return rerank(fields, limits, "1")


def version_2(fields: Fields, limits: RequestLimits) -> Work:
    return rerank(fields, limits, "2")


def error_1(status: int, message: str) -> Any:
    """Word an error for clients of Cohere, which read `message`, and of Jina, `detail`."""
    return {"message": message, "detail": message}


def error_2(status: int, message: str) -> Any:
    return {"message": message}


V1 = Form(version_1, error_1)
V2 = Form(version_2, error_2)
