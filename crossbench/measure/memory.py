"""Current and peak resident memory of processes, in MB (1e6 bytes)."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Protocol

import psutil

_MB = 1e6
_SAMPLING_S = 0.05


def rss_mb() -> float:
    """Return the resident set size of this process in MB."""
    return float(psutil.Process().memory_info().rss) / _MB


def high_water_mb(pid: int) -> float | None:
    """Return the kernel's record of a process's peak resident set in MB, None if there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / _MB if found else None


def reset_high_water(pid: int) -> bool:
    """Reset the kernel's record of a process's peak and return whether this succeeded.

    Only Linux supports it: see clear_refs in proc(5).
    """
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return high_water_mb(pid) is not None


class PeakRss(Protocol):
    """Measures the peak resident set of this process since start(), in MB."""

    def start(self) -> None:
        """Start a new measurement."""
        ...

    def peak_mb(self) -> float: ...

    def stop(self) -> None:
        """Release the resources of start(), which may be called again."""
        ...


class KernelPeak:
    """Reads the kernel's record of the peak, which is exact."""

    def start(self) -> None:
        reset_high_water(os.getpid())

    def peak_mb(self) -> float:
        return high_water_mb(os.getpid()) or rss_mb()

    def stop(self) -> None:
        """Do nothing, since start() holds no resources."""


class SampledPeak:
    """Samples the resident set in a thread every 50 ms, so it may miss shorter peaks.

    There is a single thread from the first start() until stop().
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peak_mb = 0.0
        self._stopping = threading.Event()
        self._sampler: threading.Thread | None = None

    def start(self) -> None:
        with self._lock:
            self._peak_mb = rss_mb()
            if self._sampler is None:
                self._stopping.clear()
                self._sampler = threading.Thread(target=self._sample, name="peak-rss", daemon=True)
                self._sampler.start()

    def peak_mb(self) -> float:
        with self._lock:
            self._peak_mb = max(self._peak_mb, rss_mb())
            return self._peak_mb

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.join()

    def _sample(self) -> None:
        while not self._stopping.wait(_SAMPLING_S):
            self.peak_mb()


def peak_rss() -> PeakRss:
    """Return KernelPeak if a process may reset its own record, and otherwise SampledPeak."""
    return KernelPeak() if reset_high_water(os.getpid()) else SampledPeak()
