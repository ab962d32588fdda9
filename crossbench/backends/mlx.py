"""backend=mlx: the encoder in MLX on an Apple GPU, or on a CPU, where it is correct but slow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from crossbench.backends.availability import Missing, Supported, require
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.backends.bucketing import Cost, cut
from crossbench.backends.pytorch import sample_batch
from crossbench.backends.streams import Grouping
from crossbench.errors import ConfigError, ModelError
from crossbench.models.weights import (
    ClassifierHead,
    EncoderWeights,
    Layer,
    Linear,
    Norm,
    read_weights,
)
from crossbench.types import DeviceMemory, Float32Array, Inference, PaddedBatch, Quant, TokenBatch

GROUP_SIZES = (32, 64, 128)  # the sizes for which mx.quantize has kernels
_BITS = {Quant.INT8: 8, Quant.INT4: 4}
_DTYPES = {Quant.FP32: "float32", Quant.FP16: "float16", Quant.BF16: "bfloat16"}

_Result = TypeVar("_Result")


@dataclass
class MlxBackend:
    """Computes a padded BERT on groups of similar length.

    int8 and int4 quantise the weights of the linear layers and the word embeddings, in groups of
    `group_size` along a row with one scale and one offset each. Activations, scales and the other
    embeddings are then fp16 on a GPU. On a CPU they are fp32, because MLX's quantised products are
    30 times slower there with fp16. The head (two dense layers on the CLS row) is always fp32.

    `cls_only` computes the last layer for the CLS row only, with the same result. `tf32` allows a
    GPU with matrix units to compute fp32 products with about 10 bits, which is MLX's default; the
    first model of a process decides it for all. `grouping` limits the groups. MLX chooses the
    number of CPU threads itself and ignores the deployment's.

    `stored` maps MLX data types to the bytes of the loaded weights (quantised weights are packed in
    uint32); it is known after load_model().

    Raises:
        ConfigError: `group_size` is not one of GROUP_SIZES.
    """

    supported: ClassVar[Supported] = dict.fromkeys(Quant, ("mps", "cpu"))
    layout: ClassVar[Layout] = "packed"  # it groups by length itself, so padding is small
    traits: ClassVar[Traits] = Traits(too_slow_on=("cpu",))

    name: str
    deployment: Deployment
    cls_only: bool
    group_size: int
    tf32: bool
    grouping: Grouping
    stored: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _engine: _Engine | None = field(default=None, init=False, repr=False)
    _device: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.group_size not in GROUP_SIZES:
            raise ConfigError(
                f"backend.group_size={self.group_size} is not supported by MLX: "
                f"give {_joined(GROUP_SIZES)}"
            )

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        try:
            import mlx.core as mx
        except ImportError as error:
            slow = " (on Linux it runs on the CPU only and very slowly: use it to check scores)"
            return Missing(
                f"MLX is not installed ({error})",
                "pip install 'crossbench[mlx]'" + slow * (sys.platform == "linux"),
            )
        if device == "mps" and not mx.metal.is_available():
            return Missing(
                "MLX sees no Metal GPU",
                "use a Mac with Apple silicon, or device=cpu, which is very slow",
            )
        return None

    @property
    def encoder(self) -> str:
        return "mlx"

    @property
    def workers(self) -> int:
        return 1

    @property
    def device(self) -> str:
        return self._device

    def load_model(self) -> None:
        deployment = self.deployment
        quant = deployment.quant
        self._device = require(self.name, type(self), quant, deployment.device)
        # MLX reads this at its first matrix product; its default is reduced precision for fp32
        os.environ["MLX_ENABLE_TF32"] = str(int(self.tf32))
        import mlx.core as mx

        weights = read_weights(deployment.model)
        if not isinstance(weights.head, ClassifierHead):
            raise ModelError(
                f"backend={self.name} does not support embeddings, and {deployment.model.name} is "
                "a sentence-transformer: use backend=pytorch, packed, compiled, openvino or onnx"
            )
        bits = _BITS.get(quant)
        if bits:
            check_group_size(self.group_size, weights, deployment.model.name)
        on_cpu = self._device == "cpu"
        engine = _Engine(mx, mx.cpu if on_cpu else mx.gpu)
        dtype = getattr(mx, _DTYPES.get(quant, "float32" if on_cpu else "float16"))
        try:
            self.stored = engine.load(weights, dtype, bits, self.group_size, self.cls_only)
        except BaseException:
            engine.close()
            raise
        self._engine = engine

    def warmup(self, lengths: Sequence[int]) -> None:
        self.infer(sample_batch(lengths))
        self.infer(sample_batch(lengths[:1]))

    def infer(self, batch: TokenBatch) -> Inference:
        assert self._engine is not None, "load_model() comes first"
        grouping = self.grouping
        cost = Cost(grouping.overhead_tokens, grouping.attention_cost)
        groups = cut(batch.lengths, cost, grouping.max_tokens, grouping.max_pairs)
        pad_id = self.deployment.model.pad_id
        padded = [batch.select(group).padded(pad_id) for group in groups]
        values = np.empty(len(batch), dtype=np.float32)
        for group, scores in zip(groups, self._engine.scores(padded), strict=True):
            values[group] = scores
        return Inference(values, sum(part.input_ids.size for part in padded))

    def memory(self) -> DeviceMemory:
        """Return MLX's count for the whole process since loading; on a CPU, the weights only."""
        if self._engine is None:
            return DeviceMemory()
        model_mb = sum(self.stored.values()) / 1e6
        if self._device == "cpu":
            return DeviceMemory(model_mb=model_mb)
        return replace(self._engine.memory(), model_mb=model_mb)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None


class _Engine:
    """The encoder and the single thread that makes all MLX calls for it.

    An MLX stream belongs to the thread that created it, and an unevaluated array belongs to its
    stream. Before MLX 0.31.2, evaluation on several threads was not safe at all. A GPU computes one
    graph at a time anyway, so the only cost is the switch to this thread.
    """

    def __init__(self, mx: Any, device: Any) -> None:
        self._mx, self._device = mx, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlx")
        self._encoder: _Encoder | None = None

    def load(
        self, weights: EncoderWeights, dtype: Any, bits: int | None, group_size: int, cls_only: bool
    ) -> dict[str, int]:
        """Build the encoder and return the bytes of its weights by MLX data type."""

        def build() -> dict[str, int]:
            modules = _ModuleFactory(self._mx, dtype, bits, group_size)
            self._encoder = _Encoder(weights, modules, cls_only)
            # So that the reported peak excludes the fp32 weights that were loaded first
            self._mx.clear_cache()
            self._mx.reset_peak_memory()
            return modules.stored

        return self._run(build)

    def scores(self, batches: Sequence[PaddedBatch]) -> list[Float32Array]:
        """Return the logits (n,) of each batch, on the host."""

        def compute() -> list[Float32Array]:
            assert self._encoder is not None
            logits = []
            for batch in batches:
                logits.append(self._encoder.logits(batch))
                # The device computes this group while the host builds the graph of the next one
                self._mx.async_eval(logits[-1])
            self._mx.eval(logits)
            return [np.array(part, dtype=np.float32) for part in logits]

        return self._run(compute)

    def memory(self) -> DeviceMemory:
        return DeviceMemory(
            current_mb=self._mx.get_active_memory() / 1e6,
            peak_mb=self._mx.get_peak_memory() / 1e6,
        )

    def close(self) -> None:
        def drop() -> None:
            self._encoder = None
            self._mx.clear_cache()

        self._run(drop)
        self._thread.shutdown()

    def _run(self, work: Callable[[], _Result]) -> _Result:
        def on_device() -> _Result:
            with self._mx.stream(self._device):
                return work()

        return self._thread.submit(on_device).result()


class _ModuleFactory:
    """Creates evaluated MLX modules from our weights, and counts the bytes that they store."""

    def __init__(self, mx: Any, dtype: Any, bits: int | None, group_size: int) -> None:
        import mlx.nn as nn

        self.mx, self.nn, self._dtype = mx, nn, dtype
        self._bits, self._group_size = bits, group_size
        self.stored: dict[str, int] = {}

    def linear(self, linear: Linear) -> Any:
        """Create `x @ weight.T + bias`, quantised for int8 and int4."""
        module = self._plain_linear(linear, self._dtype)
        if self._bits:
            module = self.nn.QuantizedLinear.from_linear(module, self._group_size, self._bits)
        return self._evaluated(module)

    def head(self, linear: Linear) -> Any:
        """Create a linear layer of the head: always fp32, as it is small and decides the score."""
        return self._evaluated(self._plain_linear(linear, self.mx.float32))

    def word_embeddings(self, table: Float32Array) -> Any:
        """Create the word embeddings, quantised for int8 and int4: half of a small model's size."""
        module = self._embedding(table)
        if self._bits:
            module = self.nn.QuantizedEmbedding.from_embedding(module, self._group_size, self._bits)
        return self._evaluated(module)

    def embeddings(self, table: Float32Array) -> Any:
        """Create position or type embeddings, which are never quantised."""
        return self._evaluated(self._embedding(table))

    def norm(self, norm: Norm, eps: float) -> Any:
        module = self.nn.LayerNorm(len(norm.scale), eps=eps)
        module.weight = self._array(norm.scale, self._dtype)
        module.bias = self._array(norm.shift, self._dtype)
        return self._evaluated(module)

    def _plain_linear(self, linear: Linear, dtype: Any) -> Any:
        rows, columns = linear.weight.shape
        module = self.nn.Linear(columns, rows)
        module.weight = self._array(linear.weight, dtype)
        module.bias = self._array(linear.bias, dtype)
        return module

    def _embedding(self, table: Float32Array) -> Any:
        module = self.nn.Embedding(*table.shape)
        module.weight = self._array(table, self._dtype)
        return module

    def _array(self, array: Float32Array, dtype: Any) -> Any:
        return self.mx.array(array).astype(dtype)

    def _evaluated(self, module: Any) -> Any:
        # Evaluate now, so that the fp32 original can be freed
        self.mx.eval(module.parameters())
        for array in module.parameters().values():
            dtype = str(array.dtype).removeprefix("mlx.core.")
            self.stored[dtype] = self.stored.get(dtype, 0) + array.nbytes
        return module


class _Encoder:
    """Embeddings, layers and head over padded sequences."""

    def __init__(self, weights: EncoderWeights, modules: _ModuleFactory, cls_only: bool) -> None:
        self._mx = modules.mx
        self._word_embeddings = modules.word_embeddings(weights.word_embeddings)
        self._position_embeddings, self._skipped_id = (
            modules.embeddings(weights.position_embeddings),
            weights.skipped_id,
        )
        self._type_embeddings = modules.embeddings(weights.type_embeddings)
        self._norm = modules.norm(weights.norm, weights.eps)
        last = len(weights.layers) - 1
        self._layers = [
            _EncoderLayer(weights, layer, modules, cls_only and index == last)
            for index, layer in enumerate(weights.layers)
        ]
        assert isinstance(weights.head, ClassifierHead)
        nn = modules.nn
        activations = {"tanh": self._mx.tanh, "gelu": nn.gelu, "relu": nn.relu}
        self._activation = activations[weights.head.activation]
        self._dense = modules.head(weights.head.dense)
        self._classifier = modules.head(weights.head.classifier)

    def logits(self, batch: PaddedBatch) -> Any:
        """Return unevaluated logits, float32 (n,)."""
        mx = self._mx
        ids = mx.array(batch.input_ids.astype(np.int32))
        types = mx.array(batch.type_ids.astype(np.int32))
        real = batch.attention_mask.astype(bool)
        # True at positions that are attended to; broadcast to (n, heads, rows, width)
        mask = None if real.all() else mx.array(real[:, None, None, :])
        position_ids = mx.arange(ids.shape[1])
        if self._skipped_id is not None:
            counts = (ids != self._skipped_id).astype(mx.int32)
            position_ids = mx.cumsum(counts, axis=1) * counts
        x = (
            self._word_embeddings(ids)
            + self._type_embeddings(types)
            + self._position_embeddings(position_ids)
        )
        x = self._norm(x)
        for layer in self._layers:
            x = layer(x, mask)
        pooled = self._activation(self._dense(x[:, 0].astype(mx.float32)))
        return self._classifier(pooled)[:, 0]


class _EncoderLayer:
    """One post-norm layer; with `cls_only`, it computes only the first row of its output."""

    def __init__(
        self, weights: EncoderWeights, layer: Layer, modules: _ModuleFactory, cls_only: bool
    ) -> None:
        hidden = weights.hidden
        self._attention = modules.mx.fast.scaled_dot_product_attention
        self._gelu = modules.nn.gelu  # the erf form, as in BERT; MLX fuses it into one kernel
        self._heads, self._scale = weights.heads, weights.head_dim**-0.5
        self._cls_only = cls_only
        self._query = modules.linear(layer.qkv.rows(0, hidden))
        self._key = modules.linear(layer.qkv.rows(hidden, 2 * hidden))
        self._value = modules.linear(layer.qkv.rows(2 * hidden, 3 * hidden))
        self._out = modules.linear(layer.attention_out)
        self._attention_norm = modules.norm(layer.attention_norm, weights.eps)
        self._up, self._down = modules.linear(layer.up), modules.linear(layer.down)
        self._out_norm = modules.norm(layer.out_norm, weights.eps)

    def __call__(self, x: Any, mask: Any) -> Any:
        """Map (n, width, hidden) to the same shape, or to (n, 1, hidden) with `cls_only`."""
        rows = x[:, :1] if self._cls_only else x
        query, key, value = (
            self._split(part) for part in (self._query(rows), self._key(x), self._value(x))
        )
        context = self._attention(query, key, value, scale=self._scale, mask=mask)
        joined = context.transpose(0, 2, 1, 3).reshape(rows.shape)
        rows = self._attention_norm(rows + self._out(joined))
        return self._out_norm(rows + self._down(self._gelu(self._up(rows))))

    def _split(self, x: Any) -> Any:
        """Reshape (n, rows, hidden) to (n, heads, rows, head_dim)."""
        count, rows, _ = x.shape
        return x.reshape(count, rows, self._heads, -1).transpose(0, 2, 1, 3)


def check_group_size(group_size: int, weights: EncoderWeights, model: str) -> None:
    """Refuse a group size that does not divide the row length of every quantised weight.

    Raises:
        ConfigError: the message names the row length and the group sizes that fit.
    """
    sizes = {
        "hidden_size": weights.hidden,
        "intermediate_size": weights.layers[0].down.weight.shape[1],
    }
    for key, size in sizes.items():
        if size % group_size:
            fitting = [g for g in GROUP_SIZES if not any(s % g for s in sizes.values())]
            advice = f"give {_joined(fitting)}" if fitting else "no size does; use quant=fp16"
            raise ConfigError(
                f"backend.group_size={group_size} does not divide {key}={size} of {model}: {advice}"
            )


def _joined(sizes: Sequence[int]) -> str:
    return " or ".join(str(size) for size in sizes)
