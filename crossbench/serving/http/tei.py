"""The API of Text Embeddings Inference: POST /rerank and /embed, GET /info.

Its published schema is docs/openapi.json of huggingface/text-embeddings-inference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from crossbench.models.embedding import Embedding
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.http.fields import Fields
from crossbench.serving.http.work import Form, Work, embed, ranked, refuse, relevances, score_list
from crossbench.serving.limits import RequestLimits
from crossbench.serving.service import Answer, ModelService

WRONG_TASK = 424
_TYPES = {WRONG_TASK: "backend", 429: "overloaded", 503: "unhealthy"}
_POOLING = {"lasttoken": "last_token"}  # its names where ours differ
_SAME_EVERYWHERE = {"truncation_direction": ("Right", "right")}


def rerank(fields: Fields, limits: RequestLimits) -> Work:
    """Read {query, texts, truncate, raw_scores, return_text}."""
    query, texts = fields.text("query"), fields.array("texts")
    raw, return_text = fields.flag("raw_scores", False), fields.flag("return_text", False)
    refuse(fields, _SAME_EVERYWHERE)

    def reply(service: ModelService, answer: Answer) -> Any:
        scores = answer.logits.tolist() if raw else relevances(service, answer)
        found = ranked(answer, scores)
        if return_text:
            return [{"index": at, "score": score, "text": texts[at]} for at, score in found]
        return [{"index": at, "score": score} for at, score in found]

    return Work(
        model="",
        count=len(texts),
        items="texts",
        compute=score_list(query, texts, limits, ("query", "texts")),
        reply=reply,
        truncates=fields.flag("truncate", True),
    )


def embed_inputs(fields: Fields, limits: RequestLimits) -> Work:
    """Read {inputs, truncate, normalize}; the reply is always an array of vectors."""
    inputs = fields.one_or_more("inputs")
    normalize = fields.flag("normalize", True)
    refuse(fields, {**_SAME_EVERYWHERE, "prompt_name": (), "dimensions": ()})

    def reply(service: ModelService, answer: Answer) -> Any:
        vectors = answer.values
        if normalize:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.float32(1e-12))
        return np.ascontiguousarray(vectors)

    return Work(
        model="",
        count=len(inputs),
        items="inputs",
        compute=embed(inputs, limits, "inputs"),
        reply=reply,
        truncates=fields.flag("truncate", True),
    )


def error(status: int, message: str) -> Any:
    kind = _TYPES.get(status, "validation" if status < 500 else "backend")
    return {"error": message, "error_type": kind}


def info(server: pb.ServerInfo, embedding: Embedding | None, max_requests: int) -> Any:
    """Return the reply of /info, which describes the first model, and the names of all."""
    model = server.models[0]
    kind: dict[str, Any] = _RERANKER
    if embedding is not None:
        pooling = "+".join(_POOLING.get(mode, mode) for mode in embedding.modes)
        kind = {"embedding": {"pooling": pooling}}
    return {
        "model_id": model.name,
        "model_sha": model.digest or None,
        "model_dtype": model.quant,
        "model_type": kind,
        "max_concurrent_requests": max_requests,
        "max_input_length": model.max_length,
        "max_client_batch_size": server.max_pairs,
        "auto_truncate": True,
        "version": server.version,
        "models": [item.name for item in server.models],
        "backend": model.backend,
        "device": model.device,
    }


_RERANKER = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
EMBED = Form(embed_inputs, error, WRONG_TASK)
