"""Memory and CPU of a server: its own process and its worker processes, summed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from crossbench.measure.probes import PeakRss

_MB = 1e6


class Usage:
    """Sums over this process and those that `worker_pids` names at the moment.

    Safe to call from any thread. CPU time of workers that have ended stays counted, as of the last
    look at them.
    """

    def __init__(self, worker_pids: Callable[[], Sequence[int]]) -> None:
        self._worker_pids = worker_pids
        self._own = psutil.Process()
        self._own_peak = PeakRss()
        self._lock = threading.Lock()
        self._workers: dict[int, psutil.Process] = {}
        self._worker_cpu_s: dict[int, float] = {}
        self._ended_cpu_s = 0.0
        self._workers_peak_mb = 0.0

    def rss_mb(self) -> float:
        """Resident sets in MB (1e6 bytes); pages that processes share count in each."""
        return (self._own.memory_info().rss + sum(self._worker_rss())) / _MB

    def cpu_s(self) -> float:
        """CPU seconds, user and system."""
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
        """Forget every peak before now."""
        self._own_peak.start()
        with self._lock:
            self._workers_peak_mb = 0.0
            for pid, _ in self._current():
                _reset_high_water(pid)

    def peak_mb(self) -> float:
        """Sum of the processes' own peaks in MB since start_peak(): never less than the peak of
        the sum. Where the system keeps no peak of a process, its resident set at each call."""
        with self._lock:
            peaks = [_high_water_mb(pid) or _rss(process) / _MB for pid, process in self._current()]
            self._workers_peak_mb = max(self._workers_peak_mb, sum(peaks))
            return self._own_peak.peak_mb() + self._workers_peak_mb

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


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _high_water_mb(pid: int) -> float | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / _MB if found else None


def _reset_high_water(pid: int) -> bool:
    """Whether the system let us (Linux, see proc(5): 5 into clear_refs)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True
