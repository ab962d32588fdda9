"""Build the encoder as an ONNX graph, node by node, with ONNX Runtime's fused operators.

The inputs are padded: `input_ids`, `type_ids` and `mask` (1 at tokens, 0 at padding), all int32
(n, width). The output is `values` float32: scores (n,) or vectors (n, dim). The last layer may be
computed for the CLS row only. Linear layers may be int8, with activation scales that are static
(from calibration) or per token. They are never per batch, so a score does not depend on the other
pairs in its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from crossbench.models.embedding import Embedding
from crossbench.models.quantize import Int8Linear
from crossbench.models.weights import ClassifierHead, EncoderWeights, Layer, Linear, Norm

_OPSET, _IR_VERSION = 17, 9  # supported by ONNX Runtime since 1.16
_FUSED = "com.microsoft"


def build(weights: EncoderWeights, cls_only: bool, int8: Mapping[str, Int8Linear]) -> Any:
    """Return an ONNX ModelProto in float32, with the linear layers in `int8` quantised."""
    return _Builder(weights, int8).model(cls_only)


class _Builder:
    def __init__(self, weights: EncoderWeights, int8: Mapping[str, Int8Linear]) -> None:
        self._weights, self._int8 = weights, int8
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._count = 0

    def model(self, cls_only: bool) -> Any:
        weights = self._weights
        x = self._embed()
        cls_only = cls_only and weights.reads_cls
        last = len(weights.layers) - 1
        for index, layer in enumerate(weights.layers):
            x = self._layer(index, layer, x, cls_only and index == last)
        shape: list[str | int] = ["n"]
        if isinstance(weights.head, ClassifierHead):
            values = self._classify(x, weights.head)
        else:
            values = self._pool(x, weights.head)
            shape.append(weights.head.dim(weights.hidden))
        self._nodes.append(helper.make_node("Identity", [values], ["values"]))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["n", "width"])
            for name in ("input_ids", "type_ids", "mask")
        ]
        output = helper.make_tensor_value_info("values", TensorProto.FLOAT, shape)
        graph = helper.make_graph(
            self._nodes, "encoder", inputs, [output], list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _classify(self, x: str, head: ClassifierHead) -> str:
        dense = self._linear("dense", self._first(x), head.dense)
        if head.activation == "gelu":
            hidden = self._node("Gelu", dense, domain=_FUSED)
        else:
            hidden = self._node(head.activation.capitalize(), dense)
        return self._node(
            "Squeeze", self._linear("classifier", hidden, head.classifier), self._one()
        )

    def _pool(self, x: str, embedding: Embedding) -> str:
        real = self._node("Cast", "mask", to=TensorProto.FLOAT)

        def mean() -> str:
            rows = self._node("MatMul", self._node("Unsqueeze", real, self._one()), x)
            count = self._node("ReduceSum", real, self._one(), keepdims=1)
            return self._node("Div", self._node("Squeeze", rows, self._one()), count)

        vectors = [self._first(x) if mode == "cls" else mean() for mode in embedding.modes]
        joined = vectors[0] if len(vectors) == 1 else self._node("Concat", *vectors, axis=1)
        return (
            self._node("LpNormalization", joined, axis=-1, p=2) if embedding.normalize else joined
        )

    def _first(self, x: str) -> str:
        """Return the CLS rows (n, hidden) of the states (n, width, hidden)."""
        return self._node("Gather", x, self._constant("first", 0, np.int64), axis=1)

    def _one(self) -> str:
        return self._constant("int_1", [1], np.int64)

    def _embed(self) -> str:
        weights = self._weights
        words = self._node("Gather", self._constant("words", weights.word_embeddings), "input_ids")
        kinds = self._node("Gather", self._constant("types", weights.type_embeddings), "type_ids")
        total = self._node("Add", self._node("Add", words, kinds), self._positions())
        return self._node(
            "LayerNormalization",
            total,
            self._constant("norm.scale", weights.norm.scale),
            self._constant("norm.shift", weights.norm.shift),
            axis=-1,
            epsilon=weights.eps,
        )

    def _positions(self) -> str:
        """Return the position embeddings, (width, hidden) or (n, width, hidden)."""
        table = self._constant("positions", self._weights.position_embeddings)
        zero, one = (self._constant(f"int_{value}", [value], np.int64) for value in (0, 1))
        skipped_id = self._weights.skipped_id
        if skipped_id is None:
            width = self._node("Shape", "input_ids", start=1, end=2)
            return self._node("Slice", table, zero, width, zero, one)
        skipped = self._node("Equal", "input_ids", self._constant("skipped", skipped_id, np.int32))
        counts = self._node("Cast", self._node("Not", skipped), to=TensorProto.INT64)
        position_ids = self._node("Mul", self._node("CumSum", counts, one), counts)
        return self._node("Gather", table, position_ids)

    def _layer(self, index: int, layer: Layer, x: str, cls: bool) -> str:
        hidden = self._weights.hidden
        rows = x
        if cls:
            zero, one = (self._constant(f"int_{value}", [value], np.int64) for value in (0, 1))
            rows = self._node("Slice", x, zero, one, one, one)
            q = self._linear(f"{index}.query", rows, layer.qkv.rows(0, hidden))
            rest = layer.qkv.rows(hidden, 3 * hidden)
            k, v = self._split(self._linear(f"{index}.key_value", x, rest), 2)
        else:
            q, k, v = self._split(self._linear(f"{index}.qkv", x, layer.qkv), 3)
        context = self._node(
            "MultiHeadAttention",
            *(q, k, v, "", "mask"),
            domain=_FUSED,
            num_heads=self._weights.heads,
            mask_filter_value=-1e9,
        )
        # CLS-only linear layers get other names, so they stay float: int8 would not speed them up
        prefix = f"{index}.cls_" if cls else f"{index}."
        out = self._product(f"{prefix}attention_out", context, layer.attention_out)
        rows = self._skip_norm(f"{prefix}attention", out, rows, layer.attention_norm)
        wide = self._node("BiasGelu", *self._product(f"{prefix}up", rows, layer.up), domain=_FUSED)
        down = self._product(f"{prefix}down", wide, layer.down)
        return self._skip_norm(f"{prefix}out", down, rows, layer.out_norm)

    def _split(self, x: str, parts: int) -> list[str]:
        outputs = [self._name("part") for _ in range(parts)]
        sizes = self._constant(f"split_{parts}", [self._weights.hidden] * parts, np.int64)
        self._nodes.append(helper.make_node("Split", [x, sizes], outputs, axis=-1))
        return outputs

    def _skip_norm(self, name: str, product: tuple[str, str], skip: str, norm: Norm) -> str:
        """Add `norm(x + bias + skip)` as one fused operator."""
        x, bias = product
        scale = self._constant(f"{name}.scale", norm.scale)
        shift = self._constant(f"{name}.shift", norm.shift)
        return self._node(
            "SkipLayerNormalization",
            *(x, skip, scale, shift, bias),
            domain=_FUSED,
            epsilon=self._weights.eps,
        )

    def _linear(self, name: str, x: str, linear: Linear) -> str:
        return self._node("Add", *self._product(name, x, linear))

    def _product(self, name: str, x: str, linear: Linear) -> tuple[str, str]:
        """Return the product without its bias, and the bias, which the next operator may fuse."""
        quantised = self._int8.get(name)
        if quantised is None:
            weight = self._constant(f"{name}.weight", linear.weight.T)
            bias = self._constant(f"{name}.bias", linear.bias)
            return self._node("MatMul", x, weight), bias
        bias = self._constant(f"{name}.bias", quantised.bias)
        return self._int8_product(name, x, quantised), bias

    def _int8_product(self, name: str, x: str, quantised: Int8Linear) -> str:
        if quantised.smooth is not None:
            x = self._node("Mul", x, self._constant(f"{name}.smooth", quantised.smooth))
        weight = self._constant(f"{name}.weight", quantised.weight.T, np.int8)
        weight_scale = self._constant(f"{name}.weight_scale", quantised.weight_scale[:, 0])
        if quantised.per_token:
            levels, scale, zero, row_scale = self._quantise_tokens(x)
        else:
            scale = self._constant(f"{name}.scale", quantised.input_scale)
            zero = self._constant(f"{name}.zero", quantised.zero_point, np.uint8)
            levels, row_scale = self._node("QuantizeLinear", x, scale, zero), None
        out = self._node(
            "MatMulIntegerToFloat",
            *(levels, weight, scale, weight_scale, zero),
            domain=_FUSED,
        )
        return out if row_scale is None else self._node("Mul", out, row_scale)

    def _quantise_tokens(self, x: str) -> tuple[str, str, str, str]:
        """Quantise to u8 around 128 with one scale per token.

        Returns the quantised values, the constants 1 and 128, and the scales (n, width, 1).
        """
        top = self._node("ReduceMax", x, axes=[-1], keepdims=1)
        bottom = self._node("Neg", self._node("ReduceMin", x, axes=[-1], keepdims=1))
        largest = self._node("Max", top, bottom, self._constant("tiny", 1e-12))
        row_scale = self._node("Mul", largest, self._constant("per_level", 1 / 127))
        one = self._constant("one", 1.0)
        zero = self._constant("middle", 128, np.uint8)
        levels = self._node("QuantizeLinear", self._node("Div", x, row_scale), one, zero)
        return levels, one, zero, row_scale

    def _node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = self._name(operator)
        self._nodes.append(
            helper.make_node(operator, list(inputs), [name], name, domain=domain, **attributes)
        )
        return name

    def _constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        if name not in self._constants:
            array = np.asarray(value, dtype=dtype, order="C")
            self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
