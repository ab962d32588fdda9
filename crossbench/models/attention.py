"""Attention over concatenated sequences, in padded groups or with a variable-length kernel.

The encoder uses only the `full` and `cls` methods. If a GPU has a variable-length kernel, that
kernel is therefore the only part of the encoder that tests on a CPU do not cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

# Arguments: queries (rows, heads, dim), keys and values (tokens, heads, dim), the cu_seqlens of the
# queries and of the keys (int32 (n + 1,) on the device), and the longest sequence of each.
# Returns the context (rows, heads, dim).
VarlenKernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]


class Attention(Protocol):
    """Attention within each of a batch's sequences."""

    def full(self, qkv: Tensor) -> Tensor:
        """Return the context (tokens, hidden) for the fused projections (tokens, 3 * hidden)."""
        ...

    def cls(self, q: Tensor, kv: Tensor) -> Tensor:
        """Return the context (n, hidden) for CLS queries (n, hidden).

        `kv` has the keys and values of all tokens, (tokens, 2 * hidden).
        """
        ...


class VarlenAttention:
    """Computes all sequences in one kernel call; `cu_seqlens` int32 (n + 1,) is on the device."""

    def __init__(self, kernel: VarlenKernel, heads: int, cu_seqlens: Tensor, longest: int) -> None:
        self._kernel, self._heads = kernel, heads
        self._cu_seqlens, self._longest = cu_seqlens, longest
        count = len(cu_seqlens)
        self._one_each = torch.arange(count, dtype=torch.int32, device=cu_seqlens.device)

    def full(self, qkv: Tensor) -> Tensor:
        q, k, v = qkv.view(qkv.shape[0], 3, self._heads, -1).unbind(1)
        cu, longest = self._cu_seqlens, self._longest
        return self._kernel(q, k, v, cu, cu, longest, longest).reshape(qkv.shape[0], -1)

    def cls(self, q: Tensor, kv: Tensor) -> Tensor:
        k, v = kv.view(kv.shape[0], 2, self._heads, -1).unbind(1)
        rows = q.view(q.shape[0], self._heads, -1)
        ends = (self._one_each, self._cu_seqlens)
        return self._kernel(rows, k, v, *ends, 1, self._longest).reshape(q.shape)


class GroupedAttention:
    """Computes sequences of ascending `lengths` in groups of similar length, on any device.

    `overhead` is the cost of one call, in query-key pairs.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        heads: int,
        dtype: torch.dtype,
        device: torch.device,
        overhead: float,
    ) -> None:
        self._heads = heads
        self._groups = attention_groups(lengths, dtype, device, overhead)

    def full(self, qkv: Tensor) -> Tensor:
        hidden = qkv.shape[1] // 3
        out = torch.empty(qkv.shape[0], hidden, dtype=qkv.dtype, device=qkv.device)
        for group in self._groups:
            rows = qkv[group.start : group.stop] if group.rows is None else qkv[group.rows]
            shape = (group.count, group.width, 3, self._heads, hidden // self._heads)
            q, k, v = rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
            flat = context.transpose(1, 2).reshape(-1, hidden)
            out[group.start : group.stop] = flat if group.back is None else flat[group.back]
        return out

    def cls(self, q: Tensor, kv: Tensor) -> Tensor:
        hidden = q.shape[1]
        outputs, done = [], 0
        for group in self._groups:
            rows = kv[group.start : group.stop] if group.rows is None else kv[group.rows]
            shape = (group.count, group.width, 2, self._heads, hidden // self._heads)
            k, v = rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
            queries = q[done : done + group.count].view(-1, self._heads, 1, shape[-1])
            context = F.scaled_dot_product_attention(queries, k, v, attn_mask=group.mask)
            outputs.append(context.reshape(-1, hidden))
            done += group.count
        return torch.cat(outputs)


@dataclass(frozen=True)
class AttentionGroup:
    """`count` adjacent sequences that share one attention call, padded to `width` tokens.

    They are the rows [start, stop) of a packed tensor. `rows` (count * width,) gathers them into
    the padded shape, in which padding repeats the sequence's own first token. `back`
    (stop - start,) selects the real rows again, and `mask` (count, 1, 1, width) hides the padding.
    All three are None if the lengths are equal.
    """

    start: int
    stop: int
    count: int
    width: int
    rows: Tensor | None
    back: Tensor | None
    mask: Tensor | None


def attention_groups(
    lengths: Sequence[int], dtype: torch.dtype, device: torch.device, overhead: float
) -> list[AttentionGroup]:
    """Split sequences of ascending `lengths` into the groups with the least total cost.

    A group of b sequences padded to w tokens costs `b * w * w + overhead`, in query-key pairs.
    Sequences of equal length are therefore always grouped.
    """
    count = len(lengths)
    best, start = [0.0] * (count + 1), [0] * (count + 1)
    for end in range(1, count + 1):
        square = float(lengths[end - 1]) ** 2
        best[end] = float("inf")
        for begin in range(end - 1, -1, -1):
            if (end - begin) * square > best[end]:
                break
            cost = best[begin] + (end - begin) * square + overhead
            if cost < best[end]:
                best[end], start[end] = cost, begin
    bounds = [count]
    while bounds[-1] > 0:
        bounds.append(start[bounds[-1]])
    bounds.reverse()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return [_group(offsets[begin : end + 1], dtype, device) for begin, end in pairwise(bounds)]


def _group(
    offsets: np.ndarray[tuple[int], np.dtype[np.int64]], dtype: torch.dtype, device: torch.device
) -> AttentionGroup:
    lengths = np.diff(offsets)
    count, width = len(lengths), int(lengths[-1])
    start, stop = int(offsets[0]), int(offsets[-1])
    if int(lengths[0]) == width:
        return AttentionGroup(start, stop, count, width, None, None, None)
    real = np.arange(width) < lengths[:, None]
    # Padding repeats the sequence's own first token. Another sequence's token could contain NaN,
    # and NaN times 0 is NaN even behind the mask.
    first = offsets[:-1, None]
    rows = np.where(real, first + np.arange(width), first).reshape(-1)
    hidden = torch.zeros(count, 1, 1, width, dtype=dtype, device=device)
    hidden.masked_fill_(~torch.from_numpy(real).to(device)[:, None, None, :], float("-inf"))
    return AttentionGroup(
        start,
        stop,
        count,
        width,
        torch.from_numpy(rows).to(device),
        torch.from_numpy(np.flatnonzero(real)).to(device),
        hidden,
    )
