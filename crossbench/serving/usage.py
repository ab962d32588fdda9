"""Memory and CPU time of a server: the sum over its own process and its worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import psutil

from crossbench.measure.memory import PeakRss, high_water_mb, peak_rss, reset_high_water

_MB = 1e6


class Usage:
    """Memory and CPU time of this process and the current `worker_pids`. Thread-safe.

    The CPU time of ended workers stays included, as of their last reading. `own_peak` measures the
    peak memory of this process; None selects the best method of the operating system.
    """

    def __init__(
        self, worker_pids: Callable[[], Sequence[int]], own_peak: PeakRss | None = None
    ) -> None:
        self._worker_pids = worker_pids
        self._own = psutil.Process()
        self._own_peak = own_peak or peak_rss()
        self._lock = threading.Lock()
        self._workers: dict[int, psutil.Process] = {}
        self._worker_cpu_s: dict[int, float] = {}
        self._ended_cpu_s = 0.0
        self._workers_peak_mb = 0.0

    def rss_mb(self) -> float:
        """Sum of the resident set sizes in MB (1e6 bytes). Shared pages count in every process."""
        return (self._own.memory_info().rss + sum(self._worker_rss())) / _MB

    def cpu_s(self) -> float:
        """Sum of user and system CPU time in seconds."""
        times = self._own.cpu_times()
        with self._lock:
            for pid, process in self._current():
                try:
                    spent = process.cpu_times()
                except psutil.Error:
                    continue
                self._worker_cpu_s[pid] = float(spent.user + spent.system)
            workers_s = self._ended_cpu_s + sum(self._worker_cpu_s.values())
        return float(times.user + times.system) + workers_s

    def start_peak(self) -> None:
        """Start a new measurement of the peak memory."""
        self._own_peak.start()
        with self._lock:
            self._workers_peak_mb = 0.0
            for pid, _ in self._current():
                reset_high_water(pid)

    def peak_mb(self) -> float:
        """Sum of the processes' individual peaks in MB since start_peak().

        This is an upper bound for the peak of the sum. If the operating system does not record the
        peak of a process, its resident set size at each call is used.
        """
        with self._lock:
            peaks_mb = [process_peak_mb(pid) for pid, _ in self._current()]
            self._workers_peak_mb = max(self._workers_peak_mb, sum(peaks_mb))
            return self._own_peak.peak_mb() + self._workers_peak_mb

    def close(self) -> None:
        """Stop measuring the peak memory."""
        self._own_peak.stop()

    def _worker_rss(self) -> list[int]:
        with self._lock:
            return [_rss(process) for _, process in self._current()]

    def _current(self) -> list[tuple[int, psutil.Process]]:
        pids = set(self._worker_pids())
        if pids == self._workers.keys():
            return list(self._workers.items())
        for pid in self._workers.keys() - pids:
            del self._workers[pid]
            self._ended_cpu_s += self._worker_cpu_s.pop(pid, 0.0)
        for pid in pids - self._workers.keys():
            try:
                self._workers[pid] = psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue
        return list(self._workers.items())


def process_peak_mb(pid: int) -> float:
    """Return the peak resident set of a process in MB: the kernel's record, or the current size."""
    recorded_mb = high_water_mb(pid)
    if recorded_mb is not None:
        return recorded_mb
    try:
        return _rss(psutil.Process(pid)) / _MB
    except psutil.NoSuchProcess:
        return 0.0


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # the process has just ended
        return 0
