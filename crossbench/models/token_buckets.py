"""Batches in buffers of fixed sizes, which is what a recorded CUDA graph reads.

A bucket has room for `tokens` tokens of `sequences` sequences. What a batch leaves over is filled
with tokens that belong to no sequence, and with sequences without tokens: attention never reads the
former, nobody reads the scores of the latter, and every other operation is row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossbench.models.attention import VarlenAttention, VarlenKernel
from crossbench.models.encoder import PackedInputs, places_of
from crossbench.types import Int32Array, TokenBatch

_TOKENS_PER_SEQUENCE = 16  # the shortest average that a bucket has room for
_SMALLEST = 128


@dataclass(frozen=True, slots=True)
class Bucket:
    """Room for `tokens` tokens of `sequences` sequences of at most `longest` tokens each."""

    tokens: int
    sequences: int
    longest: int

    def holds(self, batch: TokenBatch) -> bool:
        return batch.total_tokens <= self.tokens and len(batch) <= self.sequences

    @property
    def numbers(self) -> int:
        """How many int32 a batch takes in it."""
        return 3 * self.tokens + 2 * self.sequences + 1


def ladder(most_tokens: int, longest: int) -> list[Bucket]:
    """Buckets up to `most_tokens`, the smallest first, each a third to a half larger."""
    sizes = []
    size = _SMALLEST
    while size <= most_tokens:
        sizes += [size] if size * 3 // 2 > most_tokens else [size, size * 3 // 2]
        size *= 2
    return [Bucket(tokens, tokens // _TOKENS_PER_SEQUENCE, longest) for tokens in sizes]


def smallest(buckets: Sequence[Bucket], batch: TokenBatch) -> Bucket | None:
    """The first of `buckets` that holds the batch, or None."""
    return next((bucket for bucket in buckets if bucket.holds(batch)), None)


def exact(batch: TokenBatch) -> Bucket:
    """A bucket without room to spare."""
    return Bucket(batch.total_tokens, len(batch), int(batch.lengths.max()))


def pack(batch: TokenBatch, bucket: Bucket, out: Int32Array, skipped_id: int | None) -> None:
    """Write ids, types, places, starts and cu_seqlens into `out` (bucket.numbers,), end to end.

    `skipped_id` is the encoder's: see EncoderWeights.
    """
    tokens, count, sequences = batch.total_tokens, len(batch), bucket.sequences
    out[: 3 * bucket.tokens] = 0
    places = places_of(batch, skipped_id)
    for place, array in enumerate((batch.input_ids, batch.type_ids, places)):
        start = place * bucket.tokens
        out[start : start + tokens] = array
    starts = out[3 * bucket.tokens : 3 * bucket.tokens + sequences]
    starts[:count], starts[count:] = batch.cu_seqlens[:-1], 0
    ends = out[3 * bucket.tokens + sequences :]
    ends[: count + 1], ends[count + 1 :] = batch.cu_seqlens, tokens


def unpack(numbers: Tensor, bucket: Bucket, kernel: VarlenKernel, heads: int) -> PackedInputs:
    """The encoder's inputs as views of what `pack` wrote, int32 (bucket.numbers,) on the device."""
    parts = [bucket.tokens] * 3 + [bucket.sequences, bucket.sequences + 1]
    ids, types, places, starts, cu_seqlens = torch.split(numbers, parts)
    attention = VarlenAttention(kernel, heads, cu_seqlens, bucket.longest)
    return PackedInputs(ids, types, places, starts, attention)
