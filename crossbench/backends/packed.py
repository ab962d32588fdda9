"""backend=packed: our padding-free PyTorch encoder on a CPU, a CUDA device or an Apple GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crossbench.backends import cpu_features
from crossbench.backends.availability import Missing, Supported, require
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.backends.devices import device_memory, missing_device, torch_dtype
from crossbench.backends.pytorch import PyTorchBackend, sample_batch
from crossbench.backends.streams import Grouping, Streams
from crossbench.errors import ConfigError
from crossbench.models.families import has_encoder
from crossbench.models.weights import read_weights
from crossbench.types import DeviceMemory, Inference, Quant, TokenBatch

if TYPE_CHECKING:
    import torch

    from crossbench.models.encoder import MakeFeedForward, MakeProjection, PackedEncoder


@dataclass
class PackedBackend:
    """Computes without padding, so the cost grows with the number of real tokens.

    A model family that our encoder does not support runs with transformers' padded forward pass.
    `cls_only` computes the last layer for the CLS row only if the head reads no other, with the
    same result. `linear` selects the CPU's matrix library at fp32: mkl, onednn or auto. On a CPU,
    `streams` chunks of about `chunk_tokens` tokens run in parallel on one thread each (0: as many
    as the deployment has threads). `group_overhead` is the cost of one attention call in query-key
    pairs: with a higher value, more sequences of different lengths share a call, with a mask.
    """

    supported: ClassVar[Supported] = {
        Quant.FP32: ("cuda", "mps", "cpu"),
        Quant.FP16: ("cuda", "mps"),  # on a CPU its products are slower than fp32's
        Quant.BF16: ("cuda", "mps", "cpu"),
    }
    traits: ClassVar[Traits] = Traits()

    name: str
    deployment: Deployment
    cls_only: bool
    linear: str
    streams: int
    chunk_tokens: int
    group_overhead: float
    _library: PyTorchBackend | None = field(default=None, init=False, repr=False)
    _encoder: PackedEncoder | None = field(default=None, init=False, repr=False)
    _streams: Streams | None = field(default=None, init=False, repr=False)
    _device: torch.device | None = field(default=None, init=False, repr=False)

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        if device == "cpu" and quant is Quant.BF16:
            return cpu_features.missing_bf16()
        return missing_device(device)

    @property
    def layout(self) -> Layout:
        return "packed" if self.encoder == "packed" else "padded"

    @property
    def encoder(self) -> str:
        """`packed`, or `transformers` for a family that our encoder does not support."""
        return "packed" if has_encoder(self.deployment.model) else "transformers"

    @property
    def workers(self) -> int:
        return 1

    @property
    def device(self) -> str:
        return str(self._device)

    def load_model(self) -> None:
        import torch

        from crossbench.models.encoder import PackedEncoder

        deployment = self.deployment
        device = require(self.name, type(self), deployment.quant, deployment.device)
        self._device = torch.device(device)
        if self.encoder != "packed":
            self._library = PyTorchBackend(self.name, replace(deployment, device=device))
            self._library.load_model()
            return
        on_cpu = device == "cpu"
        encoder = PackedEncoder(
            read_weights(deployment.model),
            dtype=torch_dtype(deployment.quant),
            device=self._device,
            cls_only=self.cls_only,
            linear=self._projection(on_cpu),
            group_overhead=self.group_overhead,
            feed_forward=self._feed_forward(),
        )
        self._encoder = encoder
        count = self.streams or deployment.threads
        torch.set_num_threads(deployment.threads if count == 1 else 1)
        if on_cpu and count > 1:
            # There is no padding to save, so a group simply ends when its chunk is full
            grouping = Grouping(0.0, 0.0, self.chunk_tokens, self.chunk_tokens)
            self._streams = Streams(count, grouping, self._run, self._run)

    def warmup(self, lengths: Sequence[int]) -> None:
        self.infer(sample_batch(lengths))
        self.infer(sample_batch(lengths[:1]))

    def infer(self, batch: TokenBatch) -> Inference:
        if self._library is not None:
            return self._library.infer(batch)
        if self._streams is not None:
            return self._streams.infer(batch)
        ordered, order = batch.ascending()
        result = self._run(ordered)
        values = np.empty_like(result.values)
        values[order] = result.values
        return Inference(values, result.tokens_computed)

    def memory(self) -> DeviceMemory:
        if self._device is None:
            return DeviceMemory()
        if self._library is not None:
            return self._library.memory()
        stored = None if self._encoder is None else self._encoder.stored_bytes
        return device_memory(self._device, stored)

    def close(self) -> None:
        if self._streams is not None:
            self._streams.close()
        self._encoder = self._streams = self._library = None

    def _run(self, batch: TokenBatch) -> Inference:
        """Compute sequences in ascending order of length; copying to the host synchronises."""
        import torch

        assert self._encoder is not None, "load_model() comes first"
        with torch.inference_mode():
            values = self._encoder.values(batch).cpu().numpy()
        return Inference(values, batch.total_tokens)

    def _feed_forward(self) -> MakeFeedForward | None:
        """Return a factory for the part of a layer after attention; None for the encoder's own."""
        return None

    def _projection(self, on_cpu: bool) -> MakeProjection:
        from crossbench.models import encoder

        if self.linear not in ("auto", "mkl", "onednn"):
            raise ConfigError(f"backend.linear={self.linear} is unknown: give auto, mkl or onednn")
        default = "mkl" if cpu_features.mkl_supports_cpu() else "onednn"
        library = default if self.linear == "auto" else self.linear
        use_onednn = on_cpu and library == "onednn" and self.deployment.quant is Quant.FP32
        return encoder.onednn_linear if use_onednn else encoder.plain_linear
