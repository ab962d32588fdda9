"""The torch devices of this machine, and the few calls that differ between them."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from crossbench.backends.availability import Missing
from crossbench.types import DeviceMemory, Quant

if TYPE_CHECKING:
    import torch


def missing_device(device: str) -> Missing | None:
    """What a torch backend lacks for `cpu`, `mps`, `cuda` or `cuda:N`; None where it is here."""
    import torch

    if device == "mps" and not torch.backends.mps.is_available():
        return Missing(
            "PyTorch sees no Apple GPU",
            "it needs a Mac with Apple silicon and macOS 14 or newer",
        )
    if not device.startswith("cuda"):
        return None
    if torch.version.cuda is None:
        return Missing(
            f"PyTorch {torch.__version__} is built without CUDA",
            "on a machine with an NVIDIA GPU, pip install --force-reinstall torch from an index "
            "with its CUDA builds",
        )
    count = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= count:
        return Missing(
            f"PyTorch {torch.__version__} sees {count} CUDA devices, so none is {device}",
            "it needs an NVIDIA GPU and its driver (nvidia-smi lists what there is)",
        )
    return None


def cpp_compiler() -> str | None:
    """Path of the C++ compiler that torch.compile uses on a CPU; None if it is not installed."""
    return shutil.which(_compiler_name())


def _compiler_name() -> str:
    # The same choice as inductor's; importing inductor to ask would take seconds
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def missing_compiler(device: str) -> Missing | None:
    """What torch.compile lacks to write kernels for this device; None where it has it."""
    if device.startswith("cuda"):
        if find_spec("triton") is None:
            return Missing("torch.compile needs Triton on a GPU", "pip install triton")
        return None
    if device == "cpu" and cpp_compiler() is None:
        return Missing(
            f"torch.compile needs a C++ compiler on a CPU and finds no {_compiler_name()}",
            "apt-get install g++ (macOS: xcode-select --install), or set CXX to yours",
        )
    return None


def torch_dtype(quant: Quant) -> torch.dtype:
    """The floating-point type of a precision; float32 of what int8 and int4 leave over."""
    import torch

    halves = {Quant.FP16: torch.float16, Quant.BF16: torch.bfloat16}
    return halves.get(quant, torch.float32)


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
