"""The audit of the harness itself: what limited or disturbed a measurement, and by how much."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from crossbench.measure.audit import flags_of
from crossbench.measure.cpu_load import CpuCounters, CpuLoad, CpuUse
from crossbench.measure.event_loop import LoopMark, LoopMonitor
from crossbench.measure.frequency import FrequencyRange
from crossbench.measure.pauses import Pauses
from crossbench.types import RequestRecord

log = logging.getLogger(__name__)
INTERVAL_S = 1.0
RECENT = 3  # intervals by which the flags of the moment are decided
RECENT_REQUESTS = 100  # for the median latency of the moment

ReportFlags = Callable[[Mapping[str, str]], None]
CpuSeconds = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class _Reading:
    cpu: CpuCounters
    loop: LoopMark


class HarnessMeter:
    """Observes the client's event loop, this process and the machine while a load is driven.

    Create it before the measurement: looking for the run's processes takes milliseconds. The run
    is `parent_pid` (None: this process) with all processes below it, and a server elsewhere on
    this machine, whose CPU seconds `server_cpu_s` returns. Once per second, `report` receives the
    flags that the last seconds would get.
    """

    def __init__(
        self,
        parent_pid: int | None,
        report: ReportFlags = lambda flags: None,
        server_cpu_s: CpuSeconds | None = None,
        frequency: FrequencyRange | None = None,
    ) -> None:
        self._cpu = CpuLoad(parent_pid or os.getpid())
        self._report, self._server_cpu_s = report, server_cpu_s
        self._loop, self._pauses = LoopMonitor(), Pauses()
        self._frequency = frequency or FrequencyRange()
        self._readings: list[_Reading] = []
        self._records: Sequence[RequestRecord] = ()

    @contextlib.asynccontextmanager
    async def watch(self, records: Sequence[RequestRecord]) -> AsyncIterator[None]:
        """Observe until the context ends. `records` grows while the load is driven."""
        self._records = records
        async with self._loop:
            with self._pauses:
                await self._read()
                sampling = asyncio.create_task(self._sample(), name="harness-meter")
                try:
                    yield
                finally:
                    sampling.cancel()
                    (ended,) = await asyncio.gather(sampling, return_exceptions=True)
                    if isinstance(ended, Exception):  # it must not cost the cell its result
                        log.warning("the flags of the moment were not updated: %s", ended)
                    await asyncio.to_thread(self._cpu.find_processes)
                    await self._read()

    def metrics(self) -> dict[str, float]:
        """Return the metrics `harness/…`, without those that this system does not provide."""
        first, last = self._readings[0], self._readings[-1]
        loop = self._loop.use(first.loop, last.loop)
        found: dict[str, float | None] = {
            "harness/client_cpu_share": loop.cpu_share,
            "harness/loop_lag_p99_ms": loop.lag_p99_ms,
            "harness/gc_ms": self._pauses.gc_s * 1e3,
            "harness/major_page_faults": float(self._pauses.major_page_faults),
            "harness/cpu_mhz_min": self._frequency.min_mhz,
            "harness/cpu_mhz_max": self._frequency.max_mhz,
            "harness/throttle_events": self._frequency.throttle_events(),
        }
        if cpu := self._use(first, last):
            found |= {
                "harness/cores_used_by_others": cpu.others,
                "harness/cores_idle": cpu.idle,
                "harness/cpu_pressure": cpu.pressure,
                "harness/cpu_steal": cpu.steal,
            }
        return {name: value for name, value in found.items() if value is not None}

    def flags(self) -> dict[str, str]:
        """Return the flags of the whole measurement with their reasons."""
        return self._flags(self._readings, self._records)

    def _flags(
        self, readings: Sequence[_Reading], records: Sequence[RequestRecord]
    ) -> dict[str, str]:
        first, last = readings[0], readings[-1]
        spans = [use for pair in pairwise(readings) if (use := self._use(*pair))]
        latencies_ms = [record.latency_ms for record in records if record.ok]
        return flags_of(
            spans,
            self._use(first, last),
            self._loop.use(first.loop, last.loop),
            median(latencies_ms) if latencies_ms else None,
        )

    def _use(self, first: _Reading, last: _Reading) -> CpuUse | None:
        return CpuUse.between(first.cpu, last.cpu, self._cpu.cores)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self._read()
            recent = self._readings[-RECENT - 1 :]
            if len(recent) <= RECENT:
                continue
            flags = self._flags(recent, self._records[-RECENT_REQUESTS:])
            if flags:
                # A new process of the run counts as somebody else's until it is found
                found_new = await asyncio.to_thread(self._cpu.find_processes)
                if found_new:
                    continue
            self._report(flags)

    async def _read(self) -> None:
        # In a thread, because the system's files take milliseconds on a machine with many cores
        cpu = await asyncio.to_thread(self._cpu.read)
        await asyncio.to_thread(self._frequency.read)
        if self._server_cpu_s is not None:
            cpu = replace(cpu, ours_s=cpu.ours_s + await self._server_cpu_s())
        self._readings.append(_Reading(cpu, self._loop.mark()))
