"""A padding-free BERT encoder in PyTorch that computes on concatenated sequences.

Embeddings, projections, feed-forward and norms run over (tokens, hidden). Only attention needs to
know the sequences: see attention.py. With `cls_only`, the last layer computes keys and values for
all tokens and everything else for the CLS tokens only; the result is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody knows it by)
from torch import Tensor

from crossbench.models.attention import Attention, GroupedAttention
from crossbench.models.embedding import Embedding
from crossbench.models.pooling import pool_states
from crossbench.models.weights import ClassifierHead, EncoderWeights, Layer, Linear, Norm
from crossbench.types import Int32Array, TokenBatch

Projection = Callable[[Tensor], Tensor]
# Arguments: the linear layer's name ("3.up" in layer 3), its weight (out, in) and its bias (out,)
MakeProjection = Callable[[str, Tensor, Tensor], Projection]
ToTensor = Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], Tensor]
# The part of a layer after attention; arguments: the layer's input and context, (rows, hidden) each
Rest = Callable[[Tensor, Tensor], Tensor]
MakeFeedForward = Callable[[int, Layer, ToTensor, MakeProjection, float], Rest]
HEAD_ACTIVATIONS: dict[str, Projection] = {"tanh": torch.tanh, "gelu": F.gelu, "relu": torch.relu}


def plain_linear(name: str, weight: Tensor, bias: Tensor) -> Projection:
    """Make a plain `F.linear`: MKL (fp32) or oneDNN (bf16) on a CPU, cuBLAS or Metal on a GPU."""
    return lambda x: F.linear(x, weight, bias)


def onednn_linear(name: str, weight: Tensor, bias: Tensor) -> Projection:
    """Make a oneDNN linear with a prepacked weight: faster if MKL is not optimised for the CPU."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def project(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        return out

    return project


@dataclass(frozen=True)
class PackedInputs:
    """A batch on the device.

    `ids`, `types` and `position_ids` are int32 (tokens,). `starts` (n,) has the index of each
    sequence's first token. `attention` computes attention within the sequences.
    """

    ids: Tensor
    types: Tensor
    position_ids: Tensor
    starts: Tensor
    attention: Attention


class PackedEncoder:
    """The encoder and its head, on one device in one precision.

    `cls_only` has an effect only if the head reads nothing but the CLS rows. `linear` makes a
    linear layer from a weight and a bias; `feed_forward` makes the part of a layer after attention.
    `group_overhead` is the cost of one attention call, in query-key pairs. The head stays in
    float32: it has only one row per sequence, and it decides the last digits of the score.
    `stored_bytes` is the size of all weights on the device.
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
        self._heads = weights.heads
        self._overhead = group_overhead
        self._word_embeddings, self._position_embeddings = (
            tensor(weights.word_embeddings),
            tensor(weights.position_embeddings),
        )
        self.skipped_id = weights.skipped_id
        self._type_embeddings = tensor(weights.type_embeddings)
        self._norm = _Norm(weights.norm, tensor, weights.eps)
        cls_only = cls_only and weights.reads_cls
        full = weights.layers[:-1] if cls_only else weights.layers
        self._layers = [
            _Layer(index, layer, tensor, linear, make(index, layer, tensor, linear, weights.eps))
            for index, layer in enumerate(full)
        ]
        self._last = _ClsLayer(weights, tensor, linear, make) if cls_only else None
        head = weights.head
        if isinstance(head, ClassifierHead):
            parts = float_linear(head.dense), float_linear(head.classifier)
            self._head: _Classifier | Embedding = _Classifier(*parts, head.activation)
        else:
            self._head = head

    def values(self, batch: TokenBatch) -> Tensor:
        """Return logits (n,) or vectors (n, dim), float32 on the device.

        The sequences of `batch` must be in ascending order of length.
        """
        return self.run(self.inputs(batch))

    def inputs(self, batch: TokenBatch) -> PackedInputs:
        """Copy the batch to the device, with grouped attention."""
        starts = batch.cu_seqlens[:-1].astype(np.int64)
        position_ids = position_ids_of(batch, self.skipped_id)
        ids, types, positions, first = (
            torch.from_numpy(array).to(self._device)
            for array in (batch.input_ids, batch.type_ids, position_ids, starts)
        )
        lengths = batch.lengths.tolist()
        dtype, device = self._dtype, self._device
        attention = GroupedAttention(lengths, self._heads, dtype, device, self._overhead)
        return PackedInputs(ids, types, positions, first, attention)

    def run(self, inputs: PackedInputs) -> Tensor:
        """Return logits (n,) or vectors (n, dim), float32 on the device, in the inputs' order.

        With a classifier, no step waits for the host.
        """
        x = self._embed(inputs)
        for layer in self._layers:
            x = layer(x, inputs.attention.full)
        starts, head = inputs.starts, self._head
        if self._last is not None:
            cls = self._last(x, starts, inputs.attention.cls)
            if isinstance(head, _Classifier):
                return head(cls)
            return pool_states(cls, torch.ones_like(starts), head)
        if isinstance(head, _Classifier):
            return head(x[starts])
        ends = torch.cat([starts[1:], starts.new_full((1,), len(inputs.ids))])
        return pool_states(x, ends - starts, head)

    def _embed(self, inputs: PackedInputs) -> Tensor:
        x = F.embedding(inputs.ids, self._word_embeddings)
        x += F.embedding(inputs.types, self._type_embeddings)
        x += F.embedding(inputs.position_ids, self._position_embeddings)
        return self._norm(x)


def position_ids_of(batch: TokenBatch, skipped_id: int | None) -> Int32Array:
    """Return the position id of each token, int32 (tokens,): see EncoderWeights."""
    if skipped_id is None:
        position_ids = np.arange(batch.total_tokens, dtype=np.int32)
        position_ids -= np.repeat(batch.cu_seqlens[:-1], batch.lengths)
        return position_ids
    counts = batch.input_ids != skipped_id
    counted = np.concatenate([[0], np.cumsum(counts)])
    in_sequence = counted[1:] - np.repeat(counted[batch.cu_seqlens[:-1]], batch.lengths)
    rows: Int32Array = (in_sequence * counts).astype(np.int32)
    return rows


class _Classifier:
    """The classification head: CLS rows (n, hidden) to logits (n,), in float32."""

    def __init__(self, dense: Projection, classifier: Projection, activation: str) -> None:
        self._dense, self._classifier = dense, classifier
        self._activation = HEAD_ACTIVATIONS[activation]

    def __call__(self, cls: Tensor) -> Tensor:
        return self._classifier(self._activation(self._dense(cls.float())))[:, 0]


class _Norm:
    def __init__(self, norm: Norm, tensor: ToTensor, eps: float) -> None:
        self._scale, self._shift, self._eps = tensor(norm.scale), tensor(norm.shift), eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self._scale, self._shift, self._eps)


class FeedForward:
    """The part of a layer after attention: (rows, hidden) to (rows, hidden)."""

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
        # In place, so that the widest tensor of the layer is read and written only once
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
    """The last layer if the head reads only the CLS rows."""

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
        attend: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        cls = x[starts]
        return self._rest(cls, attend(self._query(cls), self._key_value(x)))
