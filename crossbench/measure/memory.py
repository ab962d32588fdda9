"""Resident memory of processes: what it is now, and the most that it was. MB are 1e6 bytes."""

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
    """Resident set of this process in MB."""
    return float(psutil.Process().memory_info().rss) / _MB


def high_water_mb(pid: int) -> float | None:
    """A process's largest resident set in MB, as the kernel keeps it; None where it does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / _MB if found else None


def reset_high_water(pid: int) -> bool:
    """Whether the kernel forgot a process's peak (Linux, see proc(5): 5 into clear_refs)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return high_water_mb(pid) is not None


class PeakRss(Protocol):
    """Largest resident set of this process in MB between start() and now."""

    def start(self) -> None:
        """Forget every peak before now."""
        ...

    def peak_mb(self) -> float: ...

    def stop(self) -> None:
        """Let go of what start() took; start() may be called again."""
        ...


class KernelPeak:
    """The kernel's own high-water mark, which misses nothing."""

    def start(self) -> None:
        reset_high_water(os.getpid())

    def peak_mb(self) -> float:
        return high_water_mb(os.getpid()) or rss_mb()

    def stop(self) -> None:
        """Nothing was taken."""


class SampledPeak:
    """A thread that looks every 50 ms, and so may miss a shorter peak.

    There is one thread from the first start() until stop(), however often start() is called.
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
    """The kernel's where it lets a process reset its own, else a sampler."""
    return KernelPeak() if reset_high_water(os.getpid()) else SampledPeak()
