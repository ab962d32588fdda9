"""What a measuring child tells its parent: one JSON object per line on a pipe of its own.

And the journal: a file in which the parent keeps those lines and its own, for whoever watches. A
file and not a pipe, for nobody who is slow to read it can hold up the cell.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from crossbench.types import RequestRecord

PROGRESS_INTERVAL_S = 0.5
WINDOW_S = 1.0
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

    def server(self, address: str | None) -> None:
        """Where the server of this cell listens, HOST:PORT; None when it is about to end."""
        self._write({"event": "server", "address": address})

    def window(
        self,
        seconds: float,
        pairs: int,
        latencies_ms: Sequence[float],
        failed: Mapping[str, int],
    ) -> None:
        """What the client saw in the last `seconds`: the requests that ended in them."""
        percentiles = np.percentile(latencies_ms, (50, 95, 99)) if latencies_ms else ()
        names = ("p50_ms", "p95_ms", "p99_ms")
        self._write(
            {
                "event": "window",
                "requests": len(latencies_ms),
                "failed": failed,
                "pairs_per_s": round(pairs / seconds, 3),
                **{name: round(ms, 3) for name, ms in zip(names, percentiles, strict=False)},
            }
        )

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
    """Observes records; reports at most every half second, and each second's own figures."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._started_s = self._reported_s = time.perf_counter()
        self._done = self._pairs = 0
        self._latencies_ms: deque[float] = deque(maxlen=RECENT_REQUESTS)
        self._start_window(self._started_s)

    def __call__(self, record: RequestRecord) -> None:
        self._done += 1
        if record.ok:
            self._pairs += record.pairs
            self._latencies_ms.append(record.latency_ms)
            self._window_pairs += record.pairs
            self._window_ms.append(record.latency_ms)
        else:
            self._window_failed[record.status] += 1
        now_s = time.perf_counter()
        window_s = now_s - self._window_s
        if window_s >= WINDOW_S:
            self._events.window(window_s, self._window_pairs, self._window_ms, self._window_failed)
            self._start_window(now_s)
        if now_s - self._reported_s < PROGRESS_INTERVAL_S:
            return
        self._reported_s = now_s
        elapsed_s = now_s - self._started_s
        p50_ms = float(np.median(self._latencies_ms)) if self._latencies_ms else 0.0
        self._events.progress(self._done, elapsed_s, self._pairs / elapsed_s, p50_ms)

    def _start_window(self, now_s: float) -> None:
        self._window_s = now_s
        self._window_pairs = 0
        self._window_ms: list[float] = []
        self._window_failed: Counter[str] = Counter()


class Journal(Protocol):
    """Takes down what happens, for whoever watches."""

    def write(self, event: Mapping[str, Any]) -> None: ...


class NoJournal:
    """Nobody watches."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Nothing to keep."""


class FileJournal:
    """Appends each event as a line with its `time` (Unix seconds); several processes may.

    `about` goes into every line, for example which cell it is of. A disk that is full costs the
    line, never the cell.
    """

    def __init__(self, path: Path, about: Mapping[str, Any] | None = None) -> None:
        self._path, self._about = path, dict(about or {})

    def write(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({"time": time.time(), **self._about, **event}, default=str) + "\n"
        with contextlib.suppress(OSError):
            # One write of the whole line, which the system appends in one piece
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
