"""How busy an event loop is, and how late it runs what is due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Self

import numpy as np

INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class LoopMark:
    """A moment: the clock, the CPU time of the loop's thread, and the number of lags so far."""

    time_s: float
    thread_s: float
    lags: int


@dataclass(frozen=True, slots=True)
class LoopUse:
    """`cpu_share` is the share of a period during which the loop's thread used the CPU.

    `lag_p99_ms` is the 99th percentile of how late a task ran that was due at any time.
    """

    cpu_share: float
    lag_p99_ms: float


class LoopMonitor:
    """Watches the running event loop by a task that is due every 20 ms.

    A loop that is blocked for a second runs 50 of these late, and the lag of each counts.
    """

    async def __aenter__(self) -> Self:
        self._lags_s: list[float] = []
        self._due_s = time.perf_counter() + INTERVAL_S
        self._task = asyncio.create_task(self._watch(), name="event-loop-lag")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def mark(self) -> LoopMark:
        """Return the current moment. Call it on the event loop's thread."""
        self._note_lags()
        return LoopMark(time.perf_counter(), time.thread_time(), len(self._lags_s))

    def use(self, first: LoopMark, last: LoopMark) -> LoopUse:
        """Return the use of the loop between two different moments."""
        lags_s = self._lags_s[first.lags : last.lags] or [0.0]
        return LoopUse(
            cpu_share=(last.thread_s - first.thread_s) / (last.time_s - first.time_s),
            lag_p99_ms=float(np.percentile(lags_s, 99)) * 1e3,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._due_s - time.perf_counter())
            self._note_lags()

    def _note_lags(self) -> None:
        now_s = time.perf_counter()
        while self._due_s <= now_s:
            self._lags_s.append(now_s - self._due_s)
            self._due_s += INTERVAL_S
