"""GPU utilisation and memory through NVML, if its Python package is installed."""

from __future__ import annotations

import contextlib
from typing import Any

from crossbench.dashboard.figures import GpuUse

_MB = 1e6


class Gpus:
    """This machine's GPUs as reported by NVML (nvidia-ml-py); none if it is not installed."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return
        with contextlib.suppress(pynvml.NVMLError):  # the package is installed, but no driver
            pynvml.nvmlInit()
            count = range(pynvml.nvmlDeviceGetCount())
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in count]
        self._nvml = pynvml

    def read(self) -> tuple[GpuUse, ...]:
        """The current state of every GPU; one that does not respond is left out."""
        found = []
        for index, handle in enumerate(self._handles):
            with contextlib.suppress(self._nvml.NVMLError):
                rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(
                    GpuUse(
                        index=index,
                        name=self._nvml.nvmlDeviceGetName(handle),
                        utilization=rates.gpu / 100,
                        memory_used_mb=memory.used / _MB,
                        memory_total_mb=memory.total / _MB,
                    )
                )
        return tuple(found)
