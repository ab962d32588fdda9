"""What a measuring child tells its parent: one JSON object per line on a pipe of its own."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from typing import TextIO

import numpy as np

from crossbench.types import RequestRecord

PROGRESS_INTERVAL_S = 0.5
RECENT_REQUESTS = 100


class EventStream:
    """Writes events; a parent that has gone is not an error (the watch on stdin ends the child)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    @classmethod
    def take_over_stdout(cls) -> EventStream:
        """Keep the pipe for events alone: whatever libraries print goes to the log instead."""
        pipe = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return cls(os.fdopen(pipe, "w", encoding="utf-8"))

    def stage(self, stage: str) -> None:
        """What the child does now, for example `loading model`."""
        self._write({"event": "stage", "stage": stage})

    def progress(self, done: int, elapsed_s: float, pairs_per_s: float, p50_ms: float) -> None:
        """How far the measurement is; p50 over the most recent requests."""
        self._write(
            {
                "event": "progress",
                "done": done,
                "elapsed_s": round(elapsed_s, 3),
                "pairs_per_s": round(pairs_per_s, 3),
                "p50_ms": round(p50_ms, 3),
            }
        )

    def _write(self, event: dict[str, object]) -> None:
        try:
            with self._lock:
                self._stream.write(json.dumps(event) + "\n")
                self._stream.flush()
        except BrokenPipeError:
            return


class Progress:
    """Observes records and reports at most every half second, so that watching costs nothing."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._started_s = self._reported_s = time.perf_counter()
        self._done = self._pairs = 0
        self._latencies_ms: deque[float] = deque(maxlen=RECENT_REQUESTS)

    def __call__(self, record: RequestRecord) -> None:
        self._done += 1
        if record.ok:
            self._pairs += record.pairs
            self._latencies_ms.append(record.latency_ms)
        now_s = time.perf_counter()
        if now_s - self._reported_s < PROGRESS_INTERVAL_S:
            return
        self._reported_s = now_s
        elapsed_s = now_s - self._started_s
        p50_ms = float(np.median(self._latencies_ms)) if self._latencies_ms else 0.0
        self._events.progress(self._done, elapsed_s, self._pairs / elapsed_s, p50_ms)
