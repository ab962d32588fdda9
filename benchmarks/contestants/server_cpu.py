"""CPU time of a server process, as its clients see it."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil


@dataclass
class ServerCpu:
    """Counts the CPU time of process `pid` from now on."""

    pid: int
    _start_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._start_s = self._now_s()

    def us_per(self, requests: int) -> float:
        """Return microseconds per request since the start."""
        return (self._now_s() - self._start_s) / max(requests, 1) * 1e6

    def _now_s(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)
