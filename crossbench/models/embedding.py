"""How a sentence-transformer makes vectors of token states, and a score of two vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossbench.types import Float32Array, Int64Array

Rows = Int64Array | list[int]

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@dataclass(frozen=True)
class Embedding:
    """How one vector is made of a text's token states, and what two vectors score.

    `modes` are of POOLING_MODES; the vectors of several lie end to end. `normalize` scales to
    length 1. `truncate_dim` keeps the first numbers of a vector, None all of them. `similarity` is
    of SIMILARITIES. The prompts are put before a text that is embedded for its own sake, before a
    query, and before a passage; most models have none ("").
    """

    modes: tuple[str, ...]
    normalize: bool
    truncate_dim: int | None
    similarity: str
    prompt: str
    query_prompt: str
    passage_prompt: str

    @property
    def reads_cls(self) -> bool:
        """Only the states of the first token are read."""
        return self.modes == ("cls",)

    def dim(self, hidden: int) -> int:
        """Numbers in one vector, for token states of `hidden` numbers."""
        whole = hidden * len(self.modes)
        return whole if self.truncate_dim is None else min(whole, self.truncate_dim)

    def truncate(self, vectors: Float32Array) -> Float32Array:
        """The first `truncate_dim` numbers of each of `vectors` (n, dim)."""
        return vectors[:, : self.truncate_dim]

    def score(self, vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
        """Similarity of the rows numbered `first` and `second` (shape (n,)) of `vectors` (m, dim).

        The greater, the more alike: distances are negative, as sentence-transformers has them.
        """
        return SIMILARITIES[self.similarity](vectors, first, second)


def cosines(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    """Cosine of the rows numbered `first` and `second` (shape (n,)) of `vectors` (m, dim)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _dots(vectors / np.maximum(lengths, np.float32(1e-12)), first, second)


def _dots(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    found: Float32Array = np.einsum("ij,ij->i", vectors[first], vectors[second]).astype(np.float32)
    return found


def _euclidean(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    found: Float32Array = -np.linalg.norm(vectors[first] - vectors[second], axis=1)
    return found.astype(np.float32)


def _manhattan(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    found: Float32Array = -np.abs(vectors[first] - vectors[second]).sum(axis=1)
    return found.astype(np.float32)


SIMILARITIES: dict[str, Callable[[Float32Array, Rows, Rows], Float32Array]] = {
    "cosine": cosines,
    "dot": _dots,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
