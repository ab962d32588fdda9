"""Settings of a sentence-transformer: pooling, normalisation, prompts and similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossbench.types import Float32Array, Int64Array

Rows = Int64Array | list[int]

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@dataclass(frozen=True)
class Embedding:
    """How a text's token states become one vector, and how two vectors are compared.

    `modes` are members of POOLING_MODES; the vectors of several modes are concatenated. `normalize`
    scales a vector to length 1. `truncate_dim` keeps only the first components of a vector; None
    keeps all. `similarity` is a key of SIMILARITIES. `prompt`, `query_prompt` and `passage_prompt`
    are prefixes of a plain text, a query and a passage; most models have none ("").
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
        """Whether pooling reads only the state of the first token."""
        return self.modes == ("cls",)

    def dim(self, hidden: int) -> int:
        """Return the dimension of a vector, for token states of size `hidden`."""
        full = hidden * len(self.modes)
        return full if self.truncate_dim is None else min(full, self.truncate_dim)

    def truncate(self, vectors: Float32Array) -> Float32Array:
        """Return the first `truncate_dim` components of each of `vectors` (n, dim)."""
        return vectors[:, : self.truncate_dim]

    def score(self, vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
        """Return the similarity (n,) of the rows `first` and `second` (n,) of `vectors` (m, dim).

        A greater value means more similar; distances are negated, as in sentence-transformers.
        """
        return SIMILARITIES[self.similarity](vectors, first, second)


def cosines(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    """Return the cosine (n,) of the rows `first` and `second` (n,) of `vectors` (m, dim)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _dots(vectors / np.maximum(lengths, np.float32(1e-12)), first, second)


def _dots(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    dots: Float32Array = np.einsum("ij,ij->i", vectors[first], vectors[second]).astype(np.float32)
    return dots


def _euclidean(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    negated: Float32Array = -np.linalg.norm(vectors[first] - vectors[second], axis=1)
    return negated.astype(np.float32)


def _manhattan(vectors: Float32Array, first: Rows, second: Rows) -> Float32Array:
    negated: Float32Array = -np.abs(vectors[first] - vectors[second]).sum(axis=1)
    return negated.astype(np.float32)


SIMILARITIES: dict[str, Callable[[Float32Array, Rows, Rows], Float32Array]] = {
    "cosine": cosines,
    "dot": _dots,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
