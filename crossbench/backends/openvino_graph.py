"""Build the encoder as an OpenVINO graph, operation by operation, from the model's weights.

The inputs are padded: `input_ids` and `type_ids` int32 (n, width), `mask` float32 (n, width) with 0
at tokens and a large negative number at padding. The output is `values` float32: scores (n,) or
vectors (n, dim). The last layer may be computed for the CLS row only. Linear layers may be int8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from crossbench.models.embedding import Embedding
from crossbench.models.quantize import Int8Linear, Int8Weight
from crossbench.models.weights import ClassifierHead, EncoderWeights, Layer, Linear, Norm

Node = Any
Int8 = Mapping[str, Int8Linear] | Mapping[str, Int8Weight]


def build(weights: EncoderWeights, cls_only: bool, int8: Int8) -> ov.Model:
    """Return the graph in float32, with the linear layers in `int8` quantised.

    An Int8Linear multiplies in int8; an Int8Weight only stores its weight in int8.
    """
    return _Builder(weights, int8).model(cls_only)


def _gelu(x: Node) -> Node:
    return op.gelu(x, "erf")


def _constant(value: Any, dtype: Any = np.float32) -> Node:
    return op.constant(np.asarray(value, dtype=dtype))


def _dequantised(weight: Any, scale: Any) -> Node:
    return op.multiply(op.convert(op.constant(weight), np.float32), _constant(scale))


class _Builder:
    def __init__(self, weights: EncoderWeights, int8: Int8) -> None:
        self._weights, self._int8 = weights, int8

    def model(self, cls_only: bool) -> ov.Model:
        weights = self._weights
        ids = op.parameter([-1, -1], np.int32, name="input_ids")
        types = op.parameter([-1, -1], np.int32, name="type_ids")
        mask = op.parameter([-1, -1], np.float32, name="mask")
        bias = op.unsqueeze(mask, _constant([1, 2], np.int32))
        x = self._embed(ids, types)
        cls_only = cls_only and weights.reads_cls
        last = len(weights.layers) - 1
        for index, layer in enumerate(weights.layers):
            x = self._layer(index, layer, x, bias, cls_only and index == last)
        if isinstance(weights.head, ClassifierHead):
            values = self._classify(x, weights.head)
        else:
            values = self._pool(x, mask, weights.head)
        values.output(0).set_names({"values"})
        for parameter in (ids, types, mask):
            parameter.output(0).set_names({parameter.get_friendly_name()})
        return ov.Model([op.result(values)], [ids, types, mask], "encoder")

    def _classify(self, x: Node, head: ClassifierHead) -> Node:
        dense = self._linear("dense", self._first(x), head.dense)
        hidden = {"tanh": op.tanh, "relu": op.relu, "gelu": _gelu}[head.activation](dense)
        logits = self._linear("classifier", hidden, head.classifier)
        return op.squeeze(logits, _constant([1], np.int32))

    def _pool(self, x: Node, mask: Node, embedding: Embedding) -> Node:
        real = op.convert(op.greater(mask, _constant(-1.0)), np.float32)
        one = _constant([1], np.int32)

        def mean() -> Node:
            sums = op.squeeze(op.matmul(op.unsqueeze(real, one), x, False, False), one)
            return op.divide(sums, op.reduce_sum(real, one, True))

        vectors = [self._first(x) if mode == "cls" else mean() for mode in embedding.modes]
        joined = vectors[0] if len(vectors) == 1 else op.concat(vectors, 1)
        return op.normalize_l2(joined, one, 1e-24, "max") if embedding.normalize else joined

    def _first(self, x: Node) -> Node:
        """Return the CLS rows (n, hidden) of the states (n, width, hidden)."""
        return op.gather(x, _constant(0, np.int32), _constant(1, np.int32))

    def _embed(self, ids: Node, types: Node) -> Node:
        weights, zero = self._weights, _constant(0, np.int32)
        words = op.gather(_constant(weights.word_embeddings), ids, zero)
        kinds = op.gather(_constant(weights.type_embeddings), types, zero)
        return self._norm(op.add(op.add(words, kinds), self._positions(ids)), weights.norm)

    def _positions(self, ids: Node) -> Node:
        """Return the position embeddings, (width, hidden) or (n, width, hidden)."""
        table, zero = _constant(self._weights.position_embeddings), _constant(0, np.int32)
        one = _constant([1], np.int32)
        skipped_id = self._weights.skipped_id
        if skipped_id is None:
            width = op.gather(op.shape_of(ids, output_type="i32"), one, zero)
            return op.slice(table, _constant([0], np.int32), width, one, _constant([0], np.int32))
        counts = op.convert(op.not_equal(ids, _constant(skipped_id, np.int32)), np.int32)
        position_ids = op.multiply(op.cum_sum(counts, _constant(1, np.int32)), counts)
        return op.gather(table, position_ids, zero)

    def _layer(self, index: int, layer: Layer, x: Node, bias: Node, cls: bool) -> Node:
        hidden = self._weights.hidden
        rows = x
        if cls:
            one, zero = _constant([1], np.int32), _constant([0], np.int32)
            rows = op.slice(x, zero, one, one, one)
            q = self._linear(f"{index}.query", rows, layer.qkv.rows(0, hidden))
            rest = layer.qkv.rows(hidden, 3 * hidden)
            both = self._linear(f"{index}.key_value", x, rest)
            k, v = op.split(both, _constant(2, np.int32), 2).outputs()
        else:
            fused = self._linear(f"{index}.qkv", x, layer.qkv)
            q, k, v = op.split(fused, _constant(2, np.int32), 3).outputs()
        heads = [self._to_heads(part) for part in (q, k, v)]
        context = self._from_heads(op.scaled_dot_product_attention(*heads, bias))
        # CLS-only linear layers get other names, so they stay float: int8 would not speed them up
        prefix = f"{index}.cls_" if cls else f"{index}."
        out = self._linear(f"{prefix}attention_out", context, layer.attention_out)
        rows = self._norm(op.add(out, rows), layer.attention_norm)
        wide = _gelu(self._linear(f"{prefix}up", rows, layer.up))
        down = self._linear(f"{prefix}down", wide, layer.down)
        return self._norm(op.add(down, rows), layer.out_norm)

    def _to_heads(self, x: Node) -> Node:
        shape = _constant([0, 0, self._weights.heads, self._weights.head_dim], np.int32)
        return op.transpose(op.reshape(x, shape, True), _constant([0, 2, 1, 3], np.int32))

    def _from_heads(self, x: Node) -> Node:
        shape = _constant([0, 0, self._weights.hidden], np.int32)
        return op.reshape(op.transpose(x, _constant([0, 2, 1, 3], np.int32)), shape, True)

    def _norm(self, x: Node, norm: Norm) -> Node:
        axes = _constant([-1], np.int32)
        centred = op.mvn(x, axes, True, self._weights.eps, "inside_sqrt")
        return op.add(op.multiply(centred, _constant(norm.scale)), _constant(norm.shift))

    def _linear(self, name: str, x: Node, linear: Linear) -> Node:
        quantised = self._int8.get(name)
        if quantised is None:
            product = op.matmul(x, _constant(linear.weight), False, True)
            return op.add(product, _constant(linear.bias))
        if isinstance(quantised, Int8Weight):
            weight = _dequantised(quantised.weight, quantised.scale)
            return op.add(op.matmul(x, weight, False, True), _constant(quantised.bias))
        if quantised.smooth is not None:
            x = op.multiply(x, _constant(quantised.smooth))
        low, high, levels, largest = quantised.low, quantised.high, 256, None
        if quantised.per_token:
            # Divide each token by its own largest value, so that all are in [-1, 1]
            top = op.reduce_max(op.abs(x), _constant([-1], np.int32), True)
            largest = op.maximum(top, _constant(1e-12))
            x, low, high, levels = op.divide(x, largest), -1.0, 1.0, 255
        ends = [_constant(end) for end in (low, high, low, high)]
        x = op.fake_quantize(x, *ends, levels)
        weight = _dequantised(quantised.weight, quantised.weight_scale)
        product = op.matmul(x, weight, False, True)
        if largest is not None:
            product = op.multiply(product, largest)
        return op.add(product, _constant(quantised.bias))
