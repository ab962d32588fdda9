"""What the requests of all APIs come down to: scores of pairs, or vectors of texts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossbench.errors import InvalidRequest
from crossbench.serving.http.fields import Fields, strings
from crossbench.serving.limits import RequestLimits
from crossbench.serving.service import Answer, ModelService
from crossbench.types import Pair

# Computes the answer before its deadline, a time of time.perf_counter
Compute = Callable[[ModelService, float | None], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Work:
    """A request of any API.

    `count` is its number of `items`, which is their name in error messages. `model` is the name it
    gives, or "". Unless it `truncates`, a text that is longer than the model reads is an error.
    `reply` returns the reply, to be written as JSON.
    """

    model: str
    count: int
    items: str
    compute: Compute
    reply: Callable[[ModelService, Answer], Any]
    truncates: bool = True


@dataclass(frozen=True, slots=True)
class Form:
    """One API. `read` raises InvalidRequest; `error` words an error with its status."""

    read: Callable[[Fields, RequestLimits], Work]
    error: Callable[[int, str], Any]
    wrong_task: int = 400  # the status if the model cannot do what is asked for


def score_list(
    query: str,
    texts: Sequence[Any],
    limits: RequestLimits,
    names: tuple[str, str] = ("query", "documents"),
    *,
    objects: bool = False,
) -> Compute:
    """Return what scores one query's texts, whose types and sizes are checked then."""

    async def compute(service: ModelService, deadline_s: float | None) -> Answer:
        passages = strings(texts, names[1], objects=objects)
        limits.check_texts([query], names[0])
        limits.check_texts(passages, names[1])
        return await service.score(query, passages, deadline_s)

    return compute


def score_pairs(
    queries: Sequence[Any],
    texts: Sequence[Any],
    limits: RequestLimits,
    names: tuple[str, str],
) -> Compute:
    """Return what scores query i and text i, for every i."""

    async def compute(service: ModelService, deadline_s: float | None) -> Answer:
        firsts, seconds = strings(queries, names[0]), strings(texts, names[1])
        limits.check_texts(firsts, names[0])
        limits.check_texts(seconds, names[1])
        pairs = [Pair(*pair) for pair in zip(firsts, seconds, strict=True)]
        return await service.score_pairs(pairs, deadline_s)

    return compute


def embed(texts: Sequence[Any], limits: RequestLimits, name: str) -> Compute:
    """Return what embeds texts."""

    async def compute(service: ModelService, deadline_s: float | None) -> Answer:
        checked = strings(texts, name)
        limits.check_texts(checked, name)
        return await service.embed(checked, deadline_s)

    return compute


def relevances(service: ModelService, answer: Answer) -> list[float]:
    """Return scores from 0 to 1: the sigmoid of a cross-encoder's logits.

    A sentence-transformer's similarities stay as they are. float64 keeps different logits apart
    that are equal after a sigmoid in float32.
    """
    if service.model.embedding is not None:
        return list(answer.values.tolist())
    logits = answer.logits.astype(np.float64)
    return list(np.exp(-np.logaddexp(0.0, -logits)).tolist())


def ranked(
    answer: Answer, scores: Sequence[float], most: int | None = None
) -> Iterator[tuple[int, float]]:
    """Yield (index, score), the best first, at most `most`; equal ones in the request's order."""
    for index in np.argsort(-answer.logits, kind="stable")[:most].tolist():
        yield index, scores[index]


def refuse(fields: Fields, honoured: Mapping[str, Sequence[Any]]) -> None:
    """Refuse fields that would change the result in a way that this server does not offer.

    `honoured` has, for each such field, the values that change nothing.

    Raises:
        InvalidRequest: a field has another value.
    """
    for name, values in honoured.items():
        if fields.has(name) and fields.values[name] not in values:
            instead = f", or send {' or '.join(map(str, values))}" if values else ""
            raise InvalidRequest(f'this server does not support "{name}": omit it{instead}')
