"""A padding-free BERT encoder in PyTorch: sequences lie end to end.

Embeddings, projections, feed-forward and norms run over (tokens, hidden). Attention alone needs
rows and columns per sequence: it runs on groups of equal or nearly equal length, in float of the
model's precision. `cls_only` computes the last layer for the row that the head reads, which is
exact: keys and values of all tokens, everything else of the CLS token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.models.weights import EncoderWeights, Layer, Linear, Norm
from crossbench.types import TokenBatch

Projection = Callable[[Tensor], Tensor]
# Of the product's name ("3.up": layer 3's), its weight (out, in) and its bias (out,).
MakeProjection = Callable[[str, Tensor, Tensor], Projection]
ToTensor = Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], Tensor]
# What follows attention in a layer: of its input and context, (rows, hidden) each.
Rest = Callable[[Tensor, Tensor], Tensor]
MakeFeedForward = Callable[[int, Layer, ToTensor, MakeProjection, float], Rest]


def plain_linear(name: str, weight: Tensor, bias: Tensor) -> Projection:
    """`F.linear` on a weight (out, in): MKL on a CPU at fp32, oneDNN at bf16, cuBLAS, Metal."""
    return lambda x: F.linear(x, weight, bias)


def onednn_linear(name: str, weight: Tensor, bias: Tensor) -> Projection:
    """oneDNN's product on a weight packed once: ahead of MKL where MKL does not know the CPU."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def project(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return out

    return project


@dataclass(frozen=True)
class AttentionGroup:
    """`count` neighbouring sequences that attend together, padded to `width` tokens.

    They hold the rows [start, stop) of a packed tensor. `rows` (count * width,) gathers them into
    the padded shape, `back` (stop - start,) picks the real rows out of it again, and `mask`
    (count, 1, 1, width) hides the padding; all three are None where the lengths are equal.
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
    """Cut sequences of ascending `lengths` into groups at least cost.

    A group of b sequences padded to w costs `b * w * w + overhead`; `overhead` is in attended
    pairs of positions. Sequences that need no padding are always worth grouping.
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
    rows = np.where(real, offsets[:-1, None] + np.arange(width), start).reshape(-1)
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


class PackedEncoder:
    """The encoder and its one-logit head on one device, in one precision.

    `linear` makes the product of a weight and bias, `feed_forward` what follows attention in a
    layer. `group_overhead` is what one attention call costs, in attended pairs of positions.
    `pooler` and `classifier` stay in float32: they are one row a pair, and the score's last digits
    are theirs. `stored_bytes` is what all weights take on the device.
    """

    def __init__(
        self,
        weights: EncoderWeights,
        *,
        dtype: torch.dtype,
        device: torch.device,
        cls_only: bool,
        linear: MakeProjection,
        group_overhead: float,
        feed_forward: MakeFeedForward | None = None,
    ) -> None:
        make = feed_forward or FeedForward

        self.stored_bytes = 0

        def tensor(
            array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], dtype: torch.dtype = dtype
        ) -> Tensor:
            made = torch.from_numpy(array).to(device=device, dtype=dtype)
            self.stored_bytes += made.nbytes
            return made

        def float_linear(linear: Linear) -> Projection:
            weight, bias = (tensor(array, torch.float32) for array in (linear.weight, linear.bias))
            return plain_linear("head", weight, bias)

        self._dtype, self._device = dtype, device
        self._heads, self._head_dim, self._eps = weights.heads, weights.head_dim, weights.eps
        self._overhead = group_overhead
        self._words, self._positions = tensor(weights.words), tensor(weights.positions)
        self._types = tensor(weights.types)
        self._norm = _Norm(weights.norm, tensor, weights.eps)
        full = weights.layers[:-1] if cls_only else weights.layers
        self._layers = [
            _Layer(index, layer, tensor, linear, make(index, layer, tensor, linear, weights.eps))
            for index, layer in enumerate(full)
        ]
        self._last = _ClsLayer(weights, tensor, linear, make) if cls_only else None
        self._pooler = float_linear(weights.pooler)
        self._classifier = float_linear(weights.classifier)

    def scores(self, batch: TokenBatch) -> Tensor:
        """Logits of shape (n,), float32 on the device.

        The sequences of `batch` must be in ascending order of length.
        """
        lengths = batch.lengths
        starts = torch.from_numpy(batch.cu_seqlens[:-1].astype(np.int64)).to(self._device)
        groups = attention_groups(lengths.tolist(), self._dtype, self._device, self._overhead)
        x = self._embed(batch)
        for layer in self._layers:
            x = layer(x, lambda qkv: self._attend(qkv, groups))
        cls = x[starts] if self._last is None else self._last(x, starts, groups, self._attend_cls)
        pooled = torch.tanh(self._pooler(cls.float()))
        return self._classifier(pooled)[:, 0]

    def _embed(self, batch: TokenBatch) -> Tensor:
        positions = np.arange(batch.total_tokens, dtype=np.int32)
        positions -= np.repeat(batch.cu_seqlens[:-1], batch.lengths)
        ids, types, places = (
            torch.from_numpy(array).to(self._device)
            for array in (batch.input_ids, batch.type_ids, positions)
        )
        x = F.embedding(ids, self._words)
        x += F.embedding(types, self._types)
        x += F.embedding(places, self._positions)
        return self._norm(x)

    def _attend(self, qkv: Tensor, groups: list[AttentionGroup]) -> Tensor:
        """Context (tokens, hidden) of the fused projections (tokens, 3 * hidden)."""
        hidden = qkv.shape[1] // 3
        out = torch.empty(qkv.shape[0], hidden, dtype=qkv.dtype, device=qkv.device)
        for group in groups:
            rows = qkv[group.start : group.stop] if group.rows is None else qkv[group.rows]
            shape = (group.count, group.width, 3, self._heads, self._head_dim)
            q, k, v = rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
            flat = context.transpose(1, 2).reshape(-1, hidden)
            out[group.start : group.stop] = flat if group.back is None else flat[group.back]
        return out

    def _attend_cls(self, q: Tensor, kv: Tensor, groups: list[AttentionGroup]) -> Tensor:
        """Context (n, hidden) of the CLS queries (n, hidden) over keys and values (tokens, 2h)."""
        hidden = q.shape[1]
        outputs, done = [], 0
        for group in groups:
            rows = kv[group.start : group.stop] if group.rows is None else kv[group.rows]
            shape = (group.count, group.width, 2, self._heads, self._head_dim)
            k, v = rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
            queries = q[done : done + group.count].view(-1, self._heads, 1, self._head_dim)
            context = F.scaled_dot_product_attention(queries, k, v, attn_mask=group.mask)
            outputs.append(context.reshape(-1, hidden))
            done += group.count
        return torch.cat(outputs)


class _Norm:
    def __init__(self, norm: Norm, tensor: ToTensor, eps: float) -> None:
        self._scale, self._shift, self._eps = tensor(norm.scale), tensor(norm.shift), eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self._scale, self._shift, self._eps)


class FeedForward:
    """Everything of a layer after attention: (rows, hidden) to (rows, hidden)."""

    def __init__(
        self, index: int, layer: Layer, tensor: ToTensor, linear: MakeProjection, eps: float
    ) -> None:
        self._out, self._up, self._down = (
            linear(f"{index}.{name}", tensor(part.weight), tensor(part.bias))
            for name, part in (
                ("attention_out", layer.attention_out),
                ("up", layer.up),
                ("down", layer.down),
            )
        )
        self._attention_norm = _Norm(layer.attention_norm, tensor, eps)
        self._out_norm = _Norm(layer.out_norm, tensor, eps)

    def __call__(self, x: Tensor, context: Tensor) -> Tensor:
        x = self._attention_norm(self._out(context).add_(x))
        # In place: the widest tensor of the layer is read and written once, not twice.
        wide = torch.ops.aten.gelu_(self._up(x))
        return self._out_norm(self._down(wide).add_(x))


class _Layer:
    def __init__(
        self,
        index: int,
        layer: Layer,
        tensor: ToTensor,
        linear: MakeProjection,
        rest: Rest,
    ) -> None:
        self._qkv = linear(f"{index}.qkv", tensor(layer.qkv.weight), tensor(layer.qkv.bias))
        self._rest = rest

    def __call__(self, x: Tensor, attend: Projection) -> Tensor:
        return self._rest(x, attend(self._qkv(x)))


class _ClsLayer:
    """The last layer where only the CLS rows are read."""

    def __init__(
        self,
        weights: EncoderWeights,
        tensor: ToTensor,
        linear: MakeProjection,
        feed_forward: MakeFeedForward,
    ) -> None:
        index, hidden = len(weights.layers) - 1, weights.hidden
        layer = weights.layers[index]
        query, rest = layer.qkv.rows(0, hidden), layer.qkv.rows(hidden, 3 * hidden)
        self._query = linear(f"{index}.query", tensor(query.weight), tensor(query.bias))
        self._key_value = linear(f"{index}.key_value", tensor(rest.weight), tensor(rest.bias))
        self._rest = feed_forward(index, layer, tensor, linear, weights.eps)

    def __call__(
        self,
        x: Tensor,
        starts: Tensor,
        groups: list[AttentionGroup],
        attend: Callable[[Tensor, Tensor, list[AttentionGroup]], Tensor],
    ) -> Tensor:
        cls = x[starts]
        return self._rest(cls, attend(self._query(cls), self._key_value(x), groups))
