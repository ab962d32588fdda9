"""Batches in fixed-size buffers, as recorded CUDA graphs require.

A bucket has room for `tokens` tokens of `sequences` sequences. Unused room is filled with tokens
that belong to no sequence and with empty sequences. Attention never reads these tokens, the scores
of these sequences are ignored, and all other operations work row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossbench.models.attention import VarlenAttention, VarlenKernel
from crossbench.models.encoder import PackedInputs, position_ids_of
from crossbench.types import Int32Array, TokenBatch

_TOKENS_PER_SEQUENCE = 16  # the shortest average length for which a bucket has enough sequences
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
        """The number of int32 values that a packed batch takes."""
        return 3 * self.tokens + 2 * self.sequences + 1


def ladder(most_tokens: int, longest: int) -> list[Bucket]:
    """Return buckets of up to `most_tokens` tokens in ascending order.

    Each bucket is a third to a half larger than the previous one.
    """
    sizes = []
    size = _SMALLEST
    while size <= most_tokens:
        sizes += [size] if size * 3 // 2 > most_tokens else [size, size * 3 // 2]
        size *= 2
    return [Bucket(tokens, tokens // _TOKENS_PER_SEQUENCE, longest) for tokens in sizes]


def smallest(buckets: Sequence[Bucket], batch: TokenBatch) -> Bucket | None:
    """Return the first of `buckets` that holds the batch, or None."""
    return next((bucket for bucket in buckets if bucket.holds(batch)), None)


def exact(batch: TokenBatch) -> Bucket:
    """Return a bucket that holds exactly this batch."""
    return Bucket(batch.total_tokens, len(batch), int(batch.lengths.max()))


def pack(batch: TokenBatch, bucket: Bucket, out: Int32Array, skipped_id: int | None) -> None:
    """Write ids, types, position ids, starts and cu_seqlens into `out` (bucket.numbers,) in order.

    `skipped_id` is the encoder's: see EncoderWeights.
    """
    tokens, count, sequences = batch.total_tokens, len(batch), bucket.sequences
    out[: 3 * bucket.tokens] = 0
    position_ids = position_ids_of(batch, skipped_id)
    for index, array in enumerate((batch.input_ids, batch.type_ids, position_ids)):
        start = index * bucket.tokens
        out[start : start + tokens] = array
    starts = out[3 * bucket.tokens : 3 * bucket.tokens + sequences]
    starts[:count], starts[count:] = batch.cu_seqlens[:-1], 0
    ends = out[3 * bucket.tokens + sequences :]
    ends[: count + 1], ends[count + 1 :] = batch.cu_seqlens, tokens


def unpack(numbers: Tensor, bucket: Bucket, kernel: VarlenKernel, heads: int) -> PackedInputs:
    """Return the encoder's inputs as views of a packed buffer, int32 (bucket.numbers,).

    The buffer is on the device and has the layout that `pack` writes.
    """
    parts = [bucket.tokens] * 3 + [bucket.sequences, bucket.sequences + 1]
    ids, types, position_ids, starts, cu_seqlens = torch.split(numbers, parts)
    attention = VarlenAttention(kernel, heads, cu_seqlens, bucket.longest)
    return PackedInputs(ids, types, position_ids, starts, attention)
