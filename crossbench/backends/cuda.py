"""backend=cuda: the padding-free encoder on an NVIDIA GPU, with variable-length attention kernels.

This file has only the GPU-specific parts: streams, pinned memory and CUDA graphs. The encoder, the
batch layout, int8 linear layers and attention also run on a CPU, where tests cover them.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from crossbench.backends.availability import Missing, Supported, require
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.backends.devices import device_memory, missing_device, torch_dtype
from crossbench.backends.pytorch import sample_batch
from crossbench.errors import BackendUnavailable, ConfigError, ModelError
from crossbench.models.weights import ClassifierHead, EncoderWeights, read_weights
from crossbench.types import DeviceMemory, Float32Array, Inference, Quant, TokenBatch

if TYPE_CHECKING:
    import torch

    from crossbench.models.attention import VarlenKernel
    from crossbench.models.encoder import PackedEncoder
    from crossbench.models.token_buckets import Bucket

KERNELS = ("auto", "torch", "flash_attn", "grouped")


@dataclass
class CudaBackend:
    """Runs two micro-batches at once, each on its own stream: one is copied while one computes.

    `attention` selects the variable-length kernel: torch's, flash_attn's, or auto (the first that
    is installed). `grouped` uses torch's ordinary attention on groups of similar length instead;
    fp32 always does so, because the kernels support half precision only. With a kernel,
    micro-batches of up to `graph_tokens` tokens run as CUDA graphs, which saves a small batch about
    a hundred kernel launches (0: no graphs). With int8, linear layers multiply in int8 and the rest
    runs in fp16: see models/int8_linear.py. `tf32` allows TF32 products at fp32, which round their
    inputs to 10 bits. `devices` lists the GPUs to which replicas are assigned in turn; None means
    the deployment's device only.
    """

    supported: ClassVar[Supported] = dict.fromkeys(
        (Quant.FP32, Quant.FP16, Quant.BF16, Quant.INT8), ("cuda",)
    )
    layout: ClassVar[Layout] = "packed"
    traits: ClassVar[Traits] = Traits()

    name: str
    deployment: Deployment
    cls_only: bool
    attention: str
    group_overhead: float
    graph_tokens: int
    tf32: bool
    devices: Any
    _lanes: queue.SimpleQueue[_Lane] | None = field(default=None, init=False, repr=False)
    _all_lanes: list[_Lane] = field(default_factory=list, init=False, repr=False)
    _model_bytes: int | None = field(default=None, init=False, repr=False)
    _device: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.attention not in KERNELS:
            raise ConfigError(
                f"backend.attention={self.attention} is unknown: give {' or '.join(KERNELS)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the loaded model, which a worker process loads itself."""
        return {**self.__dict__, "_lanes": None, "_all_lanes": [], "_model_bytes": None}

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        return missing_device(device)

    @property
    def encoder(self) -> str:
        return "packed"

    @property
    def workers(self) -> int:
        return 2

    @property
    def device(self) -> str:
        return self._device

    def load_model(self) -> None:
        import torch

        quant = self.deployment.quant
        self._device = require(self.name, type(self), quant, self.deployment.device)
        device = torch.device(self._device)
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.set_num_threads(1)  # the CPU only packs batches and launches kernels
        kernel = None if quant is Quant.FP32 else varlen_kernel(self.attention)
        weights = read_weights(self.deployment.model)
        if not isinstance(weights.head, ClassifierHead):
            raise ModelError(
                f"backend={self.name} does not support embeddings, and "
                f"{self.deployment.model.name} is a sentence-transformer: use backend=packed or "
                "compiled"
            )
        encoder, self._model_bytes = build_encoder(
            weights, quant, device, self.cls_only, self.group_overhead
        )
        self._all_lanes = [
            _Lane(encoder, device, kernel, weights.heads) for _ in range(self.workers)
        ]
        self._lanes = queue.SimpleQueue()
        for lane in self._all_lanes:
            self._lanes.put(lane)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)  # so that the peak excludes loading

    def warmup(self, lengths: Sequence[int]) -> None:
        """Select kernels, allocate memory pools and record the CUDA graphs of every lane."""
        from crossbench.models.token_buckets import ladder

        for lane in self._all_lanes:
            for sizes in (lengths, lengths[:1]):
                lane.scores(sample_batch(sizes).ascending()[0])
            for bucket in ladder(self.graph_tokens, self.deployment.model.max_length):
                lane.record(bucket)

    def infer(self, batch: TokenBatch) -> Inference:
        assert self._lanes is not None, "load_model() comes first"
        ordered, order = batch.ascending()
        lane = self._lanes.get()
        try:
            scores = lane.scores(ordered)
        finally:
            self._lanes.put(lane)
        values = np.empty_like(scores)
        values[order] = scores
        return Inference(values, batch.total_tokens)

    def memory(self) -> DeviceMemory:
        import torch

        if not self._all_lanes:
            return DeviceMemory()
        return device_memory(torch.device(self._device), self._model_bytes)

    def close(self) -> None:
        self._lanes, self._all_lanes, self._model_bytes = None, [], None


def build_encoder(
    weights: EncoderWeights,
    quant: Quant,
    device: torch.device,
    cls_only: bool,
    group_overhead: float,
) -> tuple[PackedEncoder, int]:
    """Return the encoder in the given precision on any device, and the bytes of its weights."""
    import torch

    from crossbench.models.encoder import PackedEncoder, plain_linear
    from crossbench.models.int8_linear import MakeInt8

    int8 = MakeInt8() if quant is Quant.INT8 else None
    # With int8, the precision of everything else; tests run this on a CPU, in fp32
    rest = torch.float16 if device.type == "cuda" else torch.float32
    encoder = PackedEncoder(
        weights,
        dtype=torch_dtype(quant) if int8 is None else rest,
        device=device,
        cls_only=cls_only,
        linear=int8 or plain_linear,
        group_overhead=group_overhead,
    )
    return encoder, encoder.stored_bytes - (int8.saved_bytes if int8 else 0)


def varlen_kernel(wanted: str) -> VarlenKernel | None:
    """Return the variable-length attention kernel, or None for grouped attention.

    Raises:
        BackendUnavailable: the requested kernel is not installed.
    """
    has_torch, has_flash = _has_module("torch.nn.attention.varlen"), _has_module("flash_attn")
    if wanted == "torch" and not has_torch:
        raise BackendUnavailable(
            "backend.attention=torch needs a PyTorch with torch.nn.attention.varlen: "
            "pip install 'torch>=2.10', or give backend.attention=auto"
        )
    if wanted == "flash_attn" and not has_flash:
        raise BackendUnavailable(
            "backend.attention=flash_attn needs flash-attn: pip install flash-attn "
            "--no-build-isolation, or give backend.attention=auto"
        )
    if wanted == "torch" or (wanted == "auto" and has_torch):
        from torch.nn.attention.varlen import varlen_attn

        # It returns a tensor alone unless further outputs are requested
        return cast("VarlenKernel", varlen_attn)
    if wanted == "flash_attn" or (wanted == "auto" and has_flash):
        from flash_attn import flash_attn_varlen_func

        flash: VarlenKernel = flash_attn_varlen_func
        return flash
    return None


def _has_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class _Lane:
    """The resources for one micro-batch: a stream, pinned memory and the CUDA graphs."""

    def __init__(
        self,
        encoder: PackedEncoder,
        device: torch.device,
        kernel: VarlenKernel | None,
        heads: int,
    ) -> None:
        import torch

        self._encoder, self._device, self._kernel, self._heads = encoder, device, kernel, heads
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(0, dtype=torch.int32)
        self._graphs: dict[Bucket, _Graph] = {}
        self._pool: Any = None

    def scores(self, batch: TokenBatch) -> Float32Array:
        """Return logits (n,) on the host for sequences in ascending order of length."""
        import torch

        from crossbench.models import token_buckets

        with torch.inference_mode(), torch.cuda.device(self._device):
            with torch.cuda.stream(self._stream):
                if self._kernel is None:
                    result = self._encoder.values(batch)
                else:
                    bucket = token_buckets.smallest(list(self._graphs), batch)
                    layout = bucket or token_buckets.exact(batch)
                    packed = self._pack(batch, layout)
                    if bucket is not None:
                        result = self._graphs[bucket].replay(packed)
                    else:
                        result = self._compute(packed.to(self._device, non_blocking=True), layout)
                on_host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                on_host.copy_(result, non_blocking=True)
            self._stream.synchronize()  # releases the GIL, so the other lane can continue
            scores: Float32Array = on_host.numpy()[: len(batch)]
        return scores

    def record(self, bucket: Bucket) -> None:
        """Record the forward pass of `bucket` as a CUDA graph.

        All graphs of a lane share one memory pool.
        """
        import torch

        if self._kernel is None:
            return
        with (
            torch.inference_mode(),
            torch.cuda.device(self._device),
            torch.cuda.stream(self._stream),
        ):
            numbers = torch.zeros(bucket.numbers, dtype=torch.int32, device=self._device)
            self._compute(numbers, bucket)  # selects kernels and allocates before the capture
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # thread_local: other replicas may use the GPU during the capture
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ):
                result = self._compute(numbers, bucket)
            self._pool = graph.pool()
        self._graphs[bucket] = _Graph(graph, numbers, result)

    def _compute(self, numbers: torch.Tensor, bucket: Bucket) -> torch.Tensor:
        from crossbench.models import token_buckets

        assert self._kernel is not None
        return self._encoder.run(token_buckets.unpack(numbers, bucket, self._kernel, self._heads))

    def _pack(self, batch: TokenBatch, bucket: Bucket) -> torch.Tensor:
        """Write the batch to this lane's pinned memory, which the previous batch no longer uses."""
        import torch

        from crossbench.models import token_buckets

        if len(self._pinned) < bucket.numbers:
            self._pinned = torch.empty(bucket.numbers, dtype=torch.int32, pin_memory=True)
        buffer = self._pinned[: bucket.numbers]
        token_buckets.pack(batch, bucket, buffer.numpy(), self._encoder.skipped_id)
        return buffer


@dataclass(frozen=True)
class _Graph:
    """A CUDA graph, its input `numbers` (int32, on the device) and its output, the logits."""

    graph: torch.cuda.CUDAGraph
    numbers: torch.Tensor
    result: torch.Tensor

    def replay(self, packed: torch.Tensor) -> torch.Tensor:
        self.numbers.copy_(packed, non_blocking=True)
        self.graph.replay()
        return self.result
