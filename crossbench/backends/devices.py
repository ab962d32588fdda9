"""The torch devices of this machine: availability, data types and memory."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from crossbench.backends.availability import Missing
from crossbench.types import DeviceMemory, Quant

if TYPE_CHECKING:
    import torch


def missing_device(device: str) -> Missing | None:
    """Return what is missing for PyTorch to use `cpu`, `mps`, `cuda` or `cuda:N`, or None.

    Imports torch only where a GPU is likely.
    """
    if device == "mps" and not (sys.platform == "darwin" and _sees_apple_gpu()):
        return Missing(
            "PyTorch sees no Apple GPU",
            "use a Mac with Apple silicon and macOS 14 or newer",
        )
    if not device.startswith("cuda"):
        return None
    version = metadata.version("torch")
    if "+cpu" in version or not _is_built_with_cuda():
        return Missing(
            f"PyTorch {version} is built without CUDA",
            "on a machine with an NVIDIA GPU, pip install --force-reinstall torch from an index "
            "with its CUDA builds",
        )
    import torch

    count = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= count:
        return Missing(
            f"PyTorch {version} sees {count} CUDA devices, so there is no {device}",
            "use a machine with an NVIDIA GPU and its driver (nvidia-smi lists the GPUs)",
        )
    return None


def _sees_apple_gpu() -> bool:
    import torch

    return torch.backends.mps.is_available()


def _is_built_with_cuda() -> bool:
    import torch

    return torch.version.cuda is not None


def cpp_compiler() -> str | None:
    """Return the path of the C++ compiler that torch.compile uses on a CPU, or None."""
    return shutil.which(_compiler_name())


def _compiler_name() -> str:
    # The same search as torch.compile's own, without importing it
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def missing_compiler(device: str) -> Missing | None:
    """Return what torch.compile lacks to generate code for this device, or None."""
    if device.startswith("cuda"):
        if find_spec("triton") is None:
            return Missing(
                "torch.compile needs Triton on a GPU, and it is not installed",
                "pip install triton",
            )
        return None
    if device == "cpu" and cpp_compiler() is None:
        return Missing(
            f"torch.compile needs a C++ compiler on a CPU and does not find {_compiler_name()}",
            "apt-get install g++ (macOS: xcode-select --install), or set CXX to your compiler",
        )
    return None


def torch_dtype(quant: Quant) -> torch.dtype:
    """Return the floating-point type of a precision; float32 for int8 and int4."""
    import torch

    halves = {Quant.FP16: torch.float16, Quant.BF16: torch.bfloat16}
    return halves.get(quant, torch.float32)


def device_memory(device: torch.device, model_bytes: int | None) -> DeviceMemory:
    """Return the memory that torch uses on the device; on a CPU, the size of the weights only.

    `model_bytes` is the size of the weights, or None if no model is loaded.
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
        # MPS reports no peak; the driver's value includes the allocator's cache and only grows
        return DeviceMemory(
            current_mb=torch.mps.current_allocated_memory() / 1e6,
            peak_mb=torch.mps.driver_allocated_memory() / 1e6,
            model_mb=model_mb,
        )
    return DeviceMemory(model_mb=model_mb)


def stored_bytes(module: torch.nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers; shared tensors count once.

    Quantised modules store packed weights, which only their state dict contains.
    """
    import torch

    seen: dict[int, int] = {}

    def count(value: object) -> None:
        if isinstance(value, torch.Tensor):
            key = id(value) if value.is_quantized else value.data_ptr()
            seen[key] = value.nbytes
        elif isinstance(value, tuple | list):
            for item in value:
                count(item)

    for value in (*module.state_dict().values(), *module.buffers()):
        count(value)
    return sum(seen.values())
