"""Value types that all packages share. This module imports nothing else of crossbench."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Int32Array: TypeAlias = NDArray[np.int32]
Int64Array: TypeAlias = NDArray[np.int64]
Float32Array: TypeAlias = NDArray[np.float32]


class Quant(StrEnum):
    """The precision in which a model is computed."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"


class Pipeline(StrEnum):
    """The stages that the server runs: all of them, or a single one to measure it alone."""

    FULL = "full"
    TOKENIZE = "tokenize"
    INFER = "infer"


class Task(StrEnum):
    """What the client requests: scores of pairs, or embeddings of texts."""

    SCORE = "score"
    EMBED = "embed"

    @property
    def unit(self) -> str:
        """The unit that requests contain and throughput counts: `pairs` or `texts`."""
        return "texts" if self is Task.EMBED else "pairs"


@dataclass(frozen=True, slots=True)
class Pair:
    """One (query, passage) to score."""

    query: str
    passage: str


@dataclass(frozen=True, slots=True)
class QueryPassages:
    """A query and its candidate passages, with relevance grades if the data set has judgements.

    `query_id` and `passage_ids` are the data set's identifiers. `relevance` has one grade per
    passage (0 = not relevant, None = not judged), or is None if the data set has no judgements.
    `other_grades` are the grades of judged passages that are not among the candidates. The ideal
    ranking, which nDCG divides by, includes them.
    """

    query_id: str
    query: str
    passage_ids: tuple[str, ...]
    passages: tuple[str, ...]
    relevance: tuple[int | None, ...] | None = None
    other_grades: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """A right-padded batch: three int64 arrays of shape (n, longest)."""

    input_ids: Int64Array
    type_ids: Int64Array
    attention_mask: Int64Array


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Concatenated token sequences without padding.

    `input_ids` and `type_ids` are int32 of shape (total,); `cu_seqlens` is int32 of shape (n + 1,):
    sequence i occupies [cu_seqlens[i], cu_seqlens[i + 1]).
    """

    input_ids: Int32Array
    type_ids: Int32Array
    cu_seqlens: Int32Array

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def lengths(self) -> Int32Array:
        """Number of tokens of each sequence, int32 of shape (n,)."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]

    @property
    def total_tokens(self) -> int:
        return int(self.cu_seqlens[-1])

    @classmethod
    def from_lengths(
        cls, input_ids: Int32Array, type_ids: Int32Array, lengths: Sequence[int] | Int32Array
    ) -> TokenBatch:
        """Return a batch of flat ids of shape (total,), split into the given lengths."""
        if isinstance(lengths, np.ndarray):
            cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
            np.cumsum(lengths, out=cu_seqlens[1:])
        else:  # without NumPy's overhead for a short list
            cu_seqlens = np.array([0, *accumulate(lengths)], dtype=np.int32)
        return cls(input_ids, type_ids, cu_seqlens)

    @classmethod
    def concatenate(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Return one batch with all sequences of `batches` in order."""
        if len(batches) == 1:
            return batches[0]
        return cls.from_lengths(
            np.concatenate([batch.input_ids for batch in batches]),
            np.concatenate([batch.type_ids for batch in batches]),
            np.concatenate([batch.lengths for batch in batches]),
        )

    def ascending(self) -> tuple[TokenBatch, NDArray[np.intp]]:
        """Return the sequences sorted by ascending length, and their original positions (n,).

        `values[order] = sorted_values` restores the original order of the computed values.
        """
        order = np.argsort(self.lengths, kind="stable")
        return self.select(order), order

    def select(self, indices: NDArray[np.intp]) -> TokenBatch:
        """Return the sequences at `indices` (shape (m,)), in that order."""
        if len(indices) == len(self) and np.array_equal(indices, np.arange(len(self))):
            return self
        starts, lengths = self.cu_seqlens[:-1][indices], self.lengths[indices]
        offsets = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        rows = offsets + np.arange(int(lengths.sum()), dtype=np.int32)
        return TokenBatch.from_lengths(self.input_ids[rows], self.type_ids[rows], lengths)

    def padded(self, pad_id: int, pad_to: int | None = None) -> PaddedBatch:
        """Right-pad every sequence to the longest one, or to `pad_to` tokens if that is longer."""
        lengths = self.lengths
        width = max(int(lengths.max()), pad_to or 0)
        mask = np.arange(width) < lengths[:, None]
        input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
        type_ids = np.zeros(mask.shape, dtype=np.int64)
        input_ids[mask] = self.input_ids
        type_ids[mask] = self.type_ids
        return PaddedBatch(input_ids, type_ids, mask.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Inference:
    """The output of a backend for one TokenBatch.

    `values` is float32 in host memory: scores (n,) or embeddings (n, dim). `tokens_computed` counts
    all token positions that the model processed, including padding.
    """

    values: Float32Array
    tokens_computed: int


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Device memory of a backend in MB (1e6 bytes), None if unknown.

    `model_mb` is the size of one copy of the weights as they are stored on the device.
    """

    current_mb: float | None = None
    peak_mb: float | None = None
    model_mb: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """One pair of the quality check: the served score, the reference score and the judgement.

    `reference_score` is None if the pair was not compared, `relevance` is None if it is not judged.
    """

    query_id: str
    passage_id: str
    score: float
    reference_score: float | None
    relevance: int | None


@dataclass(frozen=True, slots=True)
class QueryQuality:
    """The quality check of one query: its nDCG@10 and RR@10, and how far the ranking has changed.

    `pairs` is the number of its checked passages. `relevant` says whether one passage of the query
    is judged relevant, and `order_matters` whether the candidates have different grades, so that
    their order affects nDCG. `ndcg`, `rr` and `reference_ndcg` are None without relevant passages.
    `reference_ndcg` and all following values are None without reference scores. The differences
    are also None if the scores have another scale than the reference's. `tau` (Kendall) is also
    None if the reference gives all passages the same score, `top10_overlap` (a share) if there
    are ten passages or fewer. `same_order` ignores ties that only rounding breaks.
    """

    query_id: str
    pairs: int
    relevant: bool
    order_matters: bool
    ndcg: float | None
    rr: float | None
    reference_ndcg: float | None
    max_abs_diff: float | None
    mean_abs_diff: float | None
    tau: float | None
    top10_overlap: float | None
    same_order: bool | None


@dataclass(frozen=True, slots=True)
class Timing:
    """Time that one request spent in each stage of the server, in ms."""

    tokenize_ms: float
    queue_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One measured request, as seen by the client.

    `due_s`, `sent_s` and `received_s` are in seconds since the start of the measurement: when the
    request was due, when it was sent, and when its reply arrived. `pairs` is the number of pairs,
    or of texts if the cell embeds. `status` is the name of the gRPC status code ("OK" for success).
    `tokens` counts real tokens after truncation. If the server does not tell them, `tokens` and
    `truncated` are None and the times of the stages NaN.
    """

    index: int
    due_s: float
    sent_s: float
    received_s: float
    pairs: int
    tokens: int | None
    truncated: int | None
    tokenize_ms: float
    queue_ms: float
    infer_ms: float
    status: str

    @property
    def ok(self) -> bool:
        return self.status == "OK"

    @property
    def has_stages(self) -> bool:
        """Whether the server has told how long each stage took."""
        return not math.isnan(self.infer_ms)

    @property
    def latency_ms(self) -> float:
        return (self.received_s - self.due_s) * 1e3

    @property
    def service_ms(self) -> float:
        return (self.received_s - self.sent_s) * 1e3
