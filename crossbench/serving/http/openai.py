"""POST /v1/embeddings as OpenAI has it, and /score as vLLM has it: both word errors alike."""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

import numpy as np

from crossbench.errors import InvalidRequest
from crossbench.serving.http.fields import Fields
from crossbench.serving.http.work import Form, Work, embed, refuse, score_list, score_pairs
from crossbench.serving.limits import RequestLimits
from crossbench.serving.service import Answer, ModelService

# The published types of errors; vLLM's clients read only the message and the code
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


def embeddings(fields: Fields, limits: RequestLimits) -> Work:
    """Read {model, input, encoding_format}; `input` is a text or an array of texts."""
    inputs = fields.one_or_more("input")
    if inputs and isinstance(inputs[0], int | list):
        raise InvalidRequest('"input" has token ids: send texts, this server has its own tokenizer')
    encoding = fields.choice("encoding_format", ("float", "base64"))
    dimensions = fields.count("dimensions", least=1)
    refuse(fields, {"truncate_prompt_tokens": (-1,)})

    def reply(service: ModelService, answer: Answer) -> Any:
        vectors = np.ascontiguousarray(answer.values, dtype="<f4")
        values: list[Any] = list(vectors)
        if encoding == "base64":
            values = [base64.b64encode(row.tobytes()).decode("ascii") for row in vectors]
        return {
            "object": "list",
            "model": service.model.name,
            "data": [
                {"object": "embedding", "index": index, "embedding": value}
                for index, value in enumerate(values)
            ],
            "usage": _usage(answer),
        }

    compute = embed(inputs, limits, "input")

    async def checked(service: ModelService, deadline_s: float | None) -> Answer:
        embedding, dim = service.model.embedding, service.model.embedding_dim
        if embedding is not None and dimensions not in (None, dim):
            raise InvalidRequest(
                f'"dimensions" is {dimensions}, but the vectors of {service.model.name} have {dim} '
                "numbers: omit it"
            )
        return await compute(service, deadline_s)

    model = fields.optional_text("model")
    return Work(model, len(inputs), "input", checked, reply)


def score(fields: Fields, limits: RequestLimits) -> Work:
    """Read {model, text_1, text_2} or {model, queries, documents}, each a text or an array.

    One query is compared with every text, otherwise query i with text i.
    """
    names = ("queries", "documents") if fields.has("queries") else ("text_1", "text_2")
    queries, texts = fields.one_or_more(names[0]), fields.one_or_more(names[1])
    raw = not fields.flag("use_activation", True)
    refuse(fields, {"truncate_prompt_tokens": (-1,)})
    if len(queries) == 1 and isinstance(queries[0], str):
        compute = score_list(queries[0], texts, limits, names)
    elif len(queries) == len(texts):
        compute = score_pairs(queries, texts, limits, names)
    else:
        raise InvalidRequest(
            f"the request has {len(queries)} {names[0]} and {len(texts)} {names[1]}: send one of "
            "the first for all of the second, or as many"
        )

    def reply(service: ModelService, answer: Answer) -> Any:
        values = answer.logits if raw else answer.values
        return {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": service.model.name,
            "data": [
                {"index": index, "object": "score", "score": value}
                for index, value in enumerate(values.tolist())
            ],
            "usage": _usage(answer),
        }

    return Work(fields.optional_text("model"), len(texts), names[1], compute, reply)


def error(status: int, message: str) -> Any:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = "model_not_found" if status == 404 else None
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def score_error(status: int, message: str) -> Any:
    described = error(status, message)
    described["error"]["code"] = status
    return described


def _usage(answer: Answer) -> dict[str, int]:
    return {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}


EMBEDDINGS = Form(embeddings, error)
SCORE = Form(score, score_error)
