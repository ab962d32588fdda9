"""The metrics of a measurement that still runs, for the live page.

They are those of `statistics.summarise`, but cost the same however long the cell runs.
"""

from __future__ import annotations

from array import array
from collections import deque

import numpy as np

from crossbench.measure.catalogue import REQUESTS_FAILED, REQUESTS_OK, latency, throughput
from crossbench.types import RequestRecord

MOST_LATENCIES = 20_000  # beyond it, percentiles are those of every second request, and so on
_LEVELS = (50, 95, 99)


class SoFar:
    """Takes in replies, in their order; `unit` is `Task.unit`, pairs or texts."""

    def __init__(self, unit: str) -> None:
        self._rate = throughput(unit).name
        self._ok = self._failed = self._work = 0
        self._first_send_s, self._last_send_s, self._end_s = np.inf, 0.0, 0.0
        # Sums over the successful requests: time in the model, its square, and up to the last send
        self._model_s = self._squares = self._before_last_send_s = 0.0
        self._after: deque[tuple[float, float]] = deque()  # begin and end of those after that
        self._latencies_ms = array("d")
        self._every = 1  # one of so many requests is kept for the percentiles

    def add(self, record: RequestRecord) -> None:
        """Add a reply."""
        self._first_send_s = min(self._first_send_s, record.sent_s)
        self._last_send_s = max(self._last_send_s, record.sent_s)
        self._end_s = max(self._end_s, record.received_s)
        if record.ok:
            self._add_successful(record)
        else:
            self._failed += 1
        while self._after and self._after[0][1] <= self._last_send_s:
            begin_s, end_s = self._after.popleft()
            self._before_last_send_s += end_s - begin_s

    def _add_successful(self, record: RequestRecord) -> None:
        self._ok += 1
        self._work += record.pairs
        end_s = record.received_s
        begin_s = max(end_s - record.infer_ms / 1e3, record.sent_s)
        self._model_s += end_s - begin_s
        self._squares += (end_s - begin_s) ** 2
        self._after.append((begin_s, end_s))
        if self._ok % self._every == 0:
            self._latencies_ms.append(record.latency_ms)
            if len(self._latencies_ms) == MOST_LATENCIES:
                self._latencies_ms = self._latencies_ms[1::2]
                self._every *= 2

    def metrics(self) -> dict[str, float]:
        """Return throughput, p50, p95 and p99, and the numbers of requests, by their names."""
        found = {REQUESTS_OK.name: float(self._ok), REQUESTS_FAILED.name: float(self._failed)}
        if self._latencies_ms:
            values_ms = np.percentile(np.asarray(self._latencies_ms), _LEVELS)
            found |= {
                latency(level).name: round(float(ms), 4)
                for level, ms in zip(_LEVELS, values_ms, strict=True)
            }
        if (requests_per_s := self._requests_per_s()) is not None:
            found[self._rate] = round(requests_per_s * self._work / self._ok, 4)
        return found

    def _requests_per_s(self) -> float | None:
        """See `statistics.steady_rate`."""
        span_s = self._end_s - self._first_send_s
        if not self._ok or span_s <= 0:
            return None
        answered = self._ok - len(self._after)
        if answered < self._ok / 2:
            return self._ok / span_s
        window_s = self._last_send_s - self._first_send_s
        mean_s = self._model_s / self._ok
        if mean_s == 0:
            return answered / window_s
        cut_s = sum(max(0.0, self._last_send_s - begin_s) for begin_s, _ in self._after)
        variance = max(0.0, self._squares / self._ok - mean_s**2)
        in_model = (self._before_last_send_s + cut_s) / window_s
        return in_model / mean_s * (1 - variance / mean_s**2 / self._ok)
