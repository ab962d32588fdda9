"""Which torch device a backend runs on, and the few calls that differ between devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossbench.errors import BackendUnavailable, ConfigError, UnsupportedQuant
from crossbench.types import DeviceMemory, Quant

if TYPE_CHECKING:
    import torch


def resolve_device(wanted: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` is the best here.

    Raises:
        BackendUnavailable: this machine has no such device.
        ConfigError: no such kind of device is known.
    """
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(
            f"device={wanted} is not a device: give auto, cpu, cuda, cuda:N or mps"
        ) from error
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BackendUnavailable(
            "device mps is not here: it needs an Apple GPU (a Mac with Apple silicon, macOS 14 or "
            "newer) and a PyTorch built for it. On this machine try device=cpu"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise BackendUnavailable(
                f"device {wanted} is not here: PyTorch {torch.__version__} sees {count} CUDA "
                "devices. It needs an NVIDIA GPU, its driver and a CUDA build of PyTorch"
            )
    elif device.type not in ("cpu", "mps"):
        raise ConfigError(f"device={wanted} is not served: give auto, cpu, cuda, cuda:N or mps")
    return device


def torch_dtype(quant: Quant) -> torch.dtype:
    """The floating-point type of a precision that torch computes in directly."""
    import torch

    return {
        Quant.FP32: torch.float32,
        Quant.FP16: torch.float16,
        Quant.BF16: torch.bfloat16,
    }[quant]


def device_memory(device: torch.device, model_bytes: int | None) -> DeviceMemory:
    """What torch holds on the device; on the CPU, whose memory is the process's own, the weights.

    `model_bytes` is what the backend counted of those, None while it holds none.
    """
    import torch

    model_mb = None if model_bytes is None else model_bytes / 1e6
    if device.type == "cuda":
        return DeviceMemory(
            current_mb=torch.cuda.memory_allocated(device) / 1e6,
            peak_mb=torch.cuda.max_memory_allocated(device) / 1e6,
            model_mb=model_mb,
        )
    if device.type == "mps":
        # MPS keeps no peak; the driver's figure includes the allocator's cache and only grows
        return DeviceMemory(
            current_mb=torch.mps.current_allocated_memory() / 1e6,
            peak_mb=torch.mps.driver_allocated_memory() / 1e6,
            model_mb=model_mb,
        )
    return DeviceMemory(model_mb=model_mb)


def stored_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers in their own types, shared ones once.

    Modules that torch quantises keep packed weights, which stand in the state alone.
    """
    import torch

    seen: dict[int, int] = {}

    def count(value: object) -> None:
        if isinstance(value, torch.Tensor):
            place = id(value) if value.is_quantized else value.data_ptr()
            seen[place] = value.nbytes
        elif isinstance(value, tuple | list):
            for item in value:
                count(item)

    for value in (*module.state_dict().values(), *module.buffers()):
        count(value)
    return sum(seen.values())


def check_quant(name: str, quant: Quant, supported: frozenset[Quant]) -> None:
    """Refuse a precision before anything is loaded.

    Raises:
        UnsupportedQuant: with the list of what the backend computes in.
    """
    if quant not in supported:
        listed = ", ".join(choice.value for choice in Quant if choice in supported)
        raise UnsupportedQuant(
            f"backend={name} does not compute in {quant.value}: give quant= one of {listed}"
        )
