"""The HTTP APIs of other people's servers: the body of a request, and how its reply is read.

APIS has one entry per choice of `target.api`. A reranker answers a query and its passages with a
list of results, each with the index of its passage. The list may be sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossbench.types import Float32Array, Pair

ApiName: TypeAlias = Literal[
    "tei", "cohere", "jina", "vllm_score", "nim", "infinity", "openai_embeddings"
]
_SHOWN = 60  # characters of a bad value in a message


class BadReply(Exception):
    """The reply does not have the form of the API; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API. `ask` returns the body of a request for a query and its passages.

    The results are in the reply under the key `listed` (empty: the reply is the list), and each has
    its value under `value`. `ask_pairs` is the same for pairs of several queries, None if the API
    has no such form. `ask_texts` asks for the embeddings of texts; an API that has it gives vectors
    instead of scores.
    """

    path: str
    listed: str
    value: str
    ask: Callable[[str, Sequence[str]], dict[str, Any]] | None = None
    ask_pairs: Callable[[Sequence[Pair]], dict[str, Any]] | None = None
    ask_texts: Callable[[Sequence[str]], dict[str, Any]] | None = None

    @property
    def embeds(self) -> bool:
        """Whether the server gives vectors of texts, not scores of pairs."""
        return self.ask_texts is not None

    def values(self, reply: Any, count: int) -> list[Any]:
        """Return the value of each of `count` passages or texts, in the order of the request.

        Raises:
            BadReply: the reply is no list of results with every index once.
        """
        found: list[Any] = [None] * count
        seen = set()
        for result in self._results(reply):
            index = result.get("index") if isinstance(result, Mapping) else None
            if not isinstance(index, int) or isinstance(index, bool):
                raise BadReply(f"the result {_shown(result)} has no index")
            if not 0 <= index < count:
                raise BadReply(f"a result has the index {index}, but {count} texts were sent")
            if index in seen:
                raise BadReply(f"two results have the index {index}")
            if self.value not in result:
                raise BadReply(f"the result of index {index} has no {self.value}")
            seen.add(index)
            found[index] = result[self.value]
        if missing := [index for index in range(count) if index not in seen]:
            raise BadReply(
                f"{len(missing)} of {count} results are missing, the first of index {missing[0]}"
            )
        return found

    def _results(self, reply: Any) -> Iterable[Any]:
        results = reply
        if self.listed:
            if not isinstance(reply, Mapping) or self.listed not in reply:
                raise BadReply(f"the reply {_shown(reply)} has no {self.listed}")
            results = reply[self.listed]
        if not isinstance(results, list):
            raise BadReply(f"the reply {_shown(results)} is no list of results")
        return results


def to_scores(values: Sequence[Any]) -> Float32Array:
    """Return scores, float32 (n,), which may be NaN or infinite.

    Raises:
        BadReply: a score is no number.
    """
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadReply(f"the score of index {index} is {_shown(value)}, which is no number")
    return _as_float32(values)


def to_vectors(values: Sequence[Any]) -> Float32Array:
    """Return vectors, float32 (n, dim), which may have NaN or infinite values.

    Raises:
        BadReply: a vector is no list of numbers, or two have different lengths.
    """
    for index, value in enumerate(values):
        if not isinstance(value, list) or not value:
            raise BadReply(f"the vector of index {index} is {_shown(value)}, which is no list")
        if len(value) != len(values[0]):
            raise BadReply(f"the vectors have {len(values[0])} and {len(value)} numbers")
        if any(isinstance(x, bool) or not isinstance(x, int | float) for x in value):
            raise BadReply(f"the vector of index {index} has values that are no numbers")
    return _as_float32(values)


def cosines(vectors: Float32Array) -> Float32Array:
    """Return the cosine of the first vector with each other one; (n + 1, dim) gives (n,)."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    found: NDArray[np.float64] = wide[1:] @ wide[0] / np.maximum(norms[1:] * norms[0], 1e-12)
    return found.astype(np.float32)


def _as_float32(values: Sequence[Any]) -> Float32Array:
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite
        try:
            wide: NDArray[np.float64] = np.array(values, dtype=np.float64)
            narrow: Float32Array = wide.astype(np.float32)
        except OverflowError:  # an integer too large for float64
            raise BadReply("a number is too large") from None
    return narrow


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


_COHERE = Api(
    "/v2/rerank", "results", "relevance_score",
    ask=lambda query, texts: {"query": query, "documents": list(texts), "top_n": len(texts)},
)  # fmt: skip
_JINA = replace(
    _COHERE,
    path="/v1/rerank",
    ask=lambda query, texts: {
        "query": query,
        "documents": list(texts),
        "top_n": len(texts),
        "return_documents": False,
    },
)
APIS: Mapping[str, Api] = {
    "tei": Api(
        "/rerank", "", "score",
        ask=lambda query, texts: {
            "query": query, "texts": list(texts), "truncate": True, "raw_scores": False
        },
    ),
    "cohere": _COHERE,
    "jina": _JINA,
    "infinity": replace(_JINA, path="/rerank"),
    "vllm_score": Api(
        "/score", "data", "score",
        ask=lambda query, texts: {"text_1": query, "text_2": list(texts)},
        ask_pairs=lambda pairs: {
            "text_1": [pair.query for pair in pairs], "text_2": [pair.passage for pair in pairs]
        },
    ),
    "nim": Api(
        "/v1/ranking", "rankings", "logit",
        ask=lambda query, texts: {
            "query": {"text": query},
            "passages": [{"text": text} for text in texts],
            "truncate": "END",
        },
    ),
    "openai_embeddings": Api(
        "/v1/embeddings", "data", "embedding",
        ask_texts=lambda texts: {"input": list(texts), "encoding_format": "float"},
    ),
}  # fmt: skip
