"""The events that the cell process sends to its parent process through a pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TextIO

import numpy as np

from crossbench.events import (
    Event,
    MeasuredSoFar,
    ProgressMade,
    StageStarted,
    WindowMeasured,
    encode,
)
from crossbench.load.stop import Watch
from crossbench.measure.so_far import SoFar
from crossbench.types import RequestRecord

PROGRESS_INTERVAL_S = 0.5
WINDOW_S = 1.0
RECENT_REQUESTS = 100


class EventStream:
    """Writes events. A closed pipe is no error: the watch on standard input ends the process.

    `parent_pid` is the process that reads them, None if it is this one.
    """

    def __init__(self, stream: TextIO, parent_pid: int | None = None) -> None:
        self._stream, self.parent_pid = stream, parent_pid
        self._lock = threading.Lock()

    @classmethod
    def take_over_stdout(cls) -> EventStream:
        """Use standard output only for events; what libraries print goes to the log (stderr)."""
        pipe = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return cls(os.fdopen(pipe, "w", encoding="utf-8"), os.getppid())

    def stage(self, stage: str) -> None:
        """Send that a stage starts, for example `loading and compiling`."""
        self.send(StageStarted(stage))

    def send(self, event: Event) -> None:
        """Send an event with the current time."""
        try:
            with self._lock:
                self._stream.write(encode(event, time.time()))
                self._stream.flush()
        except BrokenPipeError:
            return


class ProgressReporter:
    """Observes request records; sends progress every half second and figures every second.

    `watch` knows how much of the measurement is done, `unit` is that of the cell's task. `clock`
    returns seconds and is monotonic.
    """

    def __init__(
        self,
        events: EventStream,
        watch: Watch,
        unit: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._events, self._watch, self._clock = events, watch, clock
        self._so_far = SoFar(unit)
        self._started_s = self._reported_s = clock()
        self._done = self._pairs = 0
        self._latencies_ms: deque[float] = deque(maxlen=RECENT_REQUESTS)
        self._start_window(self._started_s)

    def __call__(self, record: RequestRecord) -> None:
        self._done += 1
        self._so_far.add(record)
        if record.ok:
            self._pairs += record.pairs
            self._latencies_ms.append(record.latency_ms)
            self._window_pairs += record.pairs
            self._window_ms.append(record.latency_ms)
        else:
            self._window_failed[record.status] += 1
        now_s = self._clock()
        if now_s - self._window_s >= WINDOW_S:
            self._events.send(MeasuredSoFar(self._so_far.metrics()))
            self._events.send(self._window(now_s))
            self._start_window(now_s)
        if now_s - self._reported_s >= PROGRESS_INTERVAL_S:
            self._reported_s = now_s
            self._events.send(self._progress(now_s))

    def _start_window(self, now_s: float) -> None:
        self._window_s = now_s
        self._window_pairs = 0
        self._window_ms: list[float] = []
        self._window_failed: Counter[str] = Counter()

    def _window(self, now_s: float) -> WindowMeasured:
        p50_ms = p95_ms = p99_ms = None
        if self._window_ms:
            percentiles_ms = np.percentile(self._window_ms, (50, 95, 99))
            p50_ms, p95_ms, p99_ms = (round(float(ms), 3) for ms in percentiles_ms)
        return WindowMeasured(
            requests=len(self._window_ms),
            failed=dict(self._window_failed),
            pairs_per_s=round(self._window_pairs / (now_s - self._window_s), 3),
            p50_ms=p50_ms,
            p95_ms=p95_ms,
            p99_ms=p99_ms,
        )

    def _progress(self, now_s: float) -> ProgressMade:
        elapsed_s = now_s - self._started_s
        share = self._watch.share(self._done, elapsed_s)
        p50_ms = float(np.median(self._latencies_ms)) if self._latencies_ms else 0.0
        return ProgressMade(
            done=self._done,
            share=round(min(1.0, share), 4),
            pairs_per_s=round(self._pairs / elapsed_s, 3),
            p50_ms=round(p50_ms, 3),
        )
