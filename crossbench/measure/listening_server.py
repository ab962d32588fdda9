"""CPU time and memory of a server that runs already on this machine, found by its port."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

import psutil

from crossbench.measure.cpu_load import cpu_s

_MB = 1e6


class ListeningServer:
    """The processes of a server, with those below them. `read()` is called now and then."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._roots = processes
        self._readings: list[tuple[float, float]] = []  # time and CPU time, in seconds
        self._peak_mb = 0.0

    @classmethod
    def on(cls, port: int) -> Self | None:
        """Return the server on a TCP port; None if there is none that this user may look at."""
        # psutil.net_connections() names only one of the processes that share an inherited socket
        found = [process for process in psutil.process_iter() if _listens(process, port)]
        try:
            above = {parent.pid for process in found for parent in process.parents()}
        except psutil.Error:  # it ends at this moment
            return None
        # Worker processes inherit the socket of the first one, which counts them
        roots = [process for process in found if process.pid in above or len(found) == 1]
        return cls(roots or found) if found else None

    def read(self) -> float:
        """Return the CPU seconds of the processes so far, and note their memory."""
        seconds = memory_mb = 0.0
        for process in self._processes():
            seconds += cpu_s(process)
            try:
                memory_mb += process.memory_info().rss / _MB
            except psutil.Error:  # it has ended
                continue
        self._readings.append((time.perf_counter(), seconds))
        self._peak_mb = max(self._peak_mb, memory_mb)
        return seconds

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the time between the first and the last reading."""
        if len(self._readings) < 2:
            return {}
        (start_s, first_s), (end_s, last_s) = self._readings[0], self._readings[-1]
        return {
            "memory/rss_peak_mb": self._peak_mb,
            "cpu/cores_used": max(0.0, last_s - first_s) / max(end_s - start_s, 1e-9),
        }

    def _processes(self) -> list[psutil.Process]:
        found = []
        for root in self._roots:
            try:
                found += [root, *root.children(recursive=True)]
            except psutil.Error:
                continue
        return list(dict.fromkeys(found))


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:  # it has ended, or this user may not look at it
        return False
    return any(
        item.status == psutil.CONN_LISTEN and item.laddr and item.laddr.port == port
        for item in connections
    )
