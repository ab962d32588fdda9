"""Samples of the processes of a server: memory, file descriptors and threads."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.served import Served

MB = 1e6


@dataclass(frozen=True)
class Sample:
    """What the processes hold at `time_s`; memory in MB, resident."""

    time_s: float
    server_mb: float
    workers_mb: float
    dashboard_mb: float
    descriptors: int
    threads: int
    workers: int

    @property
    def total_mb(self) -> float:
        return self.server_mb + self.workers_mb + self.dashboard_mb


def sample(server: Served, time_s: float) -> Sample:
    """Read the processes. The dashboard is every child that is no worker."""
    workers = {worker.pid for worker in server.workers()}
    workers_mb = dashboard_mb = 0.0
    for child in server.children():
        with contextlib.suppress(psutil.Error):
            resident_mb = child.memory_info().rss / MB
            if child.pid in workers:
                workers_mb += resident_mb
            else:
                dashboard_mb += resident_mb
    return Sample(
        time_s,
        server.process.memory_info().rss / MB,
        workers_mb,
        dashboard_mb,
        server.process.num_fds(),
        server.process.num_threads(),
        len(workers),
    )


@dataclass(frozen=True)
class Growth:
    """The median of a figure over the second fifth of the run, and over the last one."""

    name: str
    early: float
    late: float

    @property
    def percent(self) -> float:
        return 100 * (self.late / self.early - 1) if self.early else 0.0


def growths(samples: list[Sample], expected_workers: int) -> list[Growth]:
    """Return each figure's growth. While a killed worker is replaced, memory is not counted."""
    whole = [item for item in samples if item.workers == expected_workers]
    length = samples[-1].time_s

    def fifth(number: int) -> list[Sample]:
        low, high = length * (number - 1) / 5, length * number / 5
        return [item for item in whole if low <= item.time_s <= high]

    early, late = fifth(2), fifth(5)
    return [
        Growth(
            name,
            median(float(getattr(item, key)) for item in early),
            median(float(getattr(item, key)) for item in late),
        )
        for name, key in (
            ("server, MB", "server_mb"),
            ("workers, MB", "workers_mb"),
            ("dashboard, MB", "dashboard_mb"),
            ("all, MB", "total_mb"),
            ("file descriptors of the server", "descriptors"),
            ("threads of the server", "threads"),
        )
    ]
