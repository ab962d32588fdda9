"""backend=cuda: the padding-free encoder on an NVIDIA GPU, attention by a variable-length kernel.

What is here is what only a GPU can do: streams, pinned copies, recorded graphs. The encoder, the
layout of batches, int8 products and the choice of attention are shared with what CPUs test.
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
    """Two micro-batches at once, each on a stream of its own: one is copied while one computes.

    `attention` is the variable-length kernel: torch's own, flash_attn's, or none of them (grouped:
    groups of nearly equal length by torch's ordinary attention, as fp32 always has it, since the
    kernels compute in half precision); auto takes the first that is installed. With such a kernel,
    micro-batches of up to `graph_tokens` tokens run as recorded CUDA graphs, which spares a small
    batch the launching of a hundred kernels (0: never). int8 multiplies in int8, with what is left
    over in fp16: see models/int8_linear.py. `tf32` lets fp32 products round their inputs to 10
    bits. `devices` (None: `device=`) are the GPUs that replicas go to in turns.
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
    _every_lane: list[_Lane] = field(default_factory=list, init=False, repr=False)
    _model_bytes: int | None = field(default=None, init=False, repr=False)
    _device: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.attention not in KERNELS:
            raise ConfigError(
                f"backend.attention={self.attention} is not known: give {' or '.join(KERNELS)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process gets: a backend that is not loaded."""
        return {**self.__dict__, "_lanes": None, "_every_lane": [], "_model_bytes": None}

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
        torch.set_num_threads(1)  # the host only packs and launches
        kernel = None if quant is Quant.FP32 else varlen_kernel(self.attention)
        weights = read_weights(self.deployment.model)
        if not isinstance(weights.head, ClassifierHead):
            raise ModelError(
                f"backend={self.name} scores pairs and does not embed: use backend=packed or "
                f"compiled for the sentence-transformer {self.deployment.model.name}"
            )
        encoder, self._model_bytes = build_encoder(
            weights, quant, device, self.cls_only, self.group_overhead
        )
        self._every_lane = [
            _Lane(encoder, device, kernel, weights.heads) for _ in range(self.workers)
        ]
        self._lanes = queue.SimpleQueue()
        for lane in self._every_lane:
            self._lanes.put(lane)
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)  # the peak to report is serving's

    def warmup(self, lengths: Sequence[int]) -> None:
        """Choose kernels, grow the pools, record the graphs: once per lane, nothing else runs."""
        from crossbench.models.token_buckets import ladder

        for lane in self._every_lane:
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

        if not self._every_lane:
            return DeviceMemory()
        return device_memory(torch.device(self._device), self._model_bytes)

    def close(self) -> None:
        self._lanes, self._every_lane, self._model_bytes = None, [], None


def build_encoder(
    weights: EncoderWeights,
    quant: Quant,
    device: torch.device,
    cls_only: bool,
    group_overhead: float,
) -> tuple[PackedEncoder, int]:
    """The encoder in a precision on any device, and the bytes of its weights."""
    import torch

    from crossbench.models.encoder import PackedEncoder, plain_linear
    from crossbench.models.int8_linear import MakeInt8

    int8 = MakeInt8() if quant is Quant.INT8 else None
    # On a CPU, where tests run it, what int8 leaves over is fp32.
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
    """The variable-length kernel, or None for attention in groups.

    Raises:
        BackendUnavailable: the one that is wanted is not installed.
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

        # A tensor alone, as nothing else is asked for
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
    """One micro-batch's way through the GPU: a stream, pinned memory, the graphs recorded on it."""

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
        """Logits (n,) on the host, of sequences in ascending order of length."""
        import torch

        from crossbench.models import token_buckets

        with torch.inference_mode(), torch.cuda.device(self._device):
            with torch.cuda.stream(self._stream):
                if self._kernel is None:
                    result = self._encoder.values(batch)
                else:
                    bucket = token_buckets.smallest(list(self._graphs), batch)
                    room = bucket or token_buckets.exact(batch)
                    packed = self._pack(batch, room)
                    if bucket is not None:
                        result = self._graphs[bucket].replay(packed)
                    else:
                        result = self._compute(packed.to(self._device, non_blocking=True), room)
                on_host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
                on_host.copy_(result, non_blocking=True)
            self._stream.synchronize()  # releases the GIL: the other lane goes on
            scores: Float32Array = on_host.numpy()[: len(batch)]
        return scores

    def record(self, bucket: Bucket) -> None:
        """Record the forward of `bucket` as a CUDA graph; graphs of a lane share one pool."""
        import torch

        if self._kernel is None:
            return
        with (
            torch.inference_mode(),
            torch.cuda.device(self._device),
            torch.cuda.stream(self._stream),
        ):
            numbers = torch.zeros(bucket.numbers, dtype=torch.int32, device=self._device)
            self._compute(numbers, bucket)  # what is chosen or allocated once comes before
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other replicas may compute meanwhile: only this thread must not do what breaks it
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
        """The batch in this lane's pinned memory, which is free: the last batch has come back."""
        import torch

        from crossbench.models import token_buckets

        if len(self._pinned) < bucket.numbers:
            self._pinned = torch.empty(bucket.numbers, dtype=torch.int32, pin_memory=True)
        room = self._pinned[: bucket.numbers]
        token_buckets.pack(batch, bucket, room.numpy(), self._encoder.skipped_id)
        return room


@dataclass(frozen=True)
class _Graph:
    """A recorded forward, the numbers (int32, on the device) it reads and the logits it writes."""

    graph: torch.cuda.CUDAGraph
    numbers: torch.Tensor
    result: torch.Tensor

    def replay(self, packed: torch.Tensor) -> torch.Tensor:
        self.numbers.copy_(packed, non_blocking=True)
        self.graph.replay()
        return self.result
