"""Counters of a server, and the snapshot of them that GetMetrics and WatchMetrics return."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.memory import PeakRss
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.usage import Usage
from crossbench.types import Timing

RECENT_REQUESTS = 4096
RECENT_S = 30.0  # with slow requests, a longer period would hide the current state
RATE_WINDOW_S = 1.0


class RecentRequests:
    """Ring buffer with the timings of the most recent requests."""

    def __init__(self) -> None:
        # Columns: end in s; then latency, tokenize, queue and infer in ms
        self._rows = np.zeros((RECENT_REQUESTS, 5))
        self._added = 0

    def add(self, ended_s: float, spent_ms: tuple[float, float, float, float]) -> None:
        self._rows[self._added % RECENT_REQUESTS] = (ended_s, *spent_ms)
        self._added += 1

    def since(self, start_s: float) -> NDArray[np.float64]:
        """Return the timings in ms of requests that ended after `start_s`, (n, 4), unordered."""
        rows = self._rows[: self._added]
        return rows[rows[:, 0] >= start_s, 1:]


class Telemetry:
    """Counters since the last reset. `batch_done` may be called from any thread.

    `worker_pids` returns the ids of the current worker processes, which `usage` includes.
    `own_peak` measures the peak memory of the server process.
    """

    def __init__(
        self, worker_pids: Callable[[], Sequence[int]], own_peak: PeakRss | None = None
    ) -> None:
        self._lock = threading.Lock()
        self.usage = Usage(worker_pids, own_peak)
        self._started_s = time.perf_counter()
        self._rate_mark = (self._started_s, 0, self.usage.cpu_s())
        self._rates = (0.0, 0.0)
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Reset all counters except the uptime and the number of requests in flight."""
        self.usage.start_peak()
        with self._lock:
            self._reset_s = time.perf_counter()
            self._failed: Counter[str] = Counter()
            self._ok = self._pairs = self._tokens = self._truncated = 0
            self._batches = self._batch_pairs = self._batch_tokens = self._computed = 0
            self._wasted = 0
            self._sums_ms = [0.0, 0.0, 0.0, 0.0]
            self._recent = RecentRequests()
            self._rate_mark = (self._reset_s, 0, self.usage.cpu_s())
            self._rates = (0.0, 0.0)

    def batch_done(self, pairs: int, tokens: int, tokens_computed: int, wasted: int) -> None:
        """Count a micro-batch that a worker ran; see pool.BatchObserver."""
        with self._lock:
            self._batches += 1
            self._batch_pairs += pairs
            self._batch_tokens += tokens
            self._computed += tokens_computed
            self._wasted += wasted

    def request_done(
        self, latency_ms: float, timing: Timing, pairs: int, tokens: int, truncated: int
    ) -> None:
        """Count a successful request; `latency_ms` starts when it arrives in the handler."""
        with self._lock:
            self._ok += 1
            self._pairs += pairs
            self._tokens += tokens
            self._truncated += truncated
            spent_ms = (latency_ms, timing.tokenize_ms, timing.queue_ms, timing.infer_ms)
            for stage, ms in enumerate(spent_ms):
                self._sums_ms[stage] += ms
            self._recent.add(time.perf_counter(), spent_ms)

    def request_failed(self, status: str) -> None:
        """Count a failed request under the name of its gRPC status."""
        with self._lock:
            self._failed[status] += 1

    def recent_ms(self) -> NDArray[np.float64]:
        """Return the timings in ms of the recent requests, (n, 4), unordered.

        The columns are latency, tokenize, queue and infer.
        """
        with self._lock:
            return self._recent.since(time.perf_counter() - RECENT_S)

    def snapshot(self) -> pb.Metrics:
        """Return the current counters, without queue length and device memory."""
        now_s = time.perf_counter()
        with self._lock:
            recent = self._recent.since(now_s - RECENT_S)
            latency_ms, tokenize_ms, queue_ms, infer_ms = self._sums_ms
            metrics = pb.Metrics(
                uptime_s=now_s - self._started_s,
                since_reset_s=now_s - self._reset_s,
                requests_ok=self._ok,
                requests_failed=self._failed,
                pairs=self._pairs,
                tokens=self._tokens,
                truncated_pairs=self._truncated,
                batches=self._batches,
                batch_pairs=self._batch_pairs,
                batch_tokens=self._batch_tokens,
                tokens_computed=self._computed,
                requests_in_flight=self.in_flight,
                wasted_pairs=self._wasted,
                latency_sum_ms=latency_ms,
                tokenize_sum_ms=tokenize_ms,
                queue_sum_ms=queue_ms,
                infer_sum_ms=infer_ms,
            )
            metrics.pairs_per_s, metrics.cpu_cores = self._update_rates(now_s)
        set_distributions(metrics, recent)
        metrics.rss_mb = self.usage.rss_mb()
        metrics.rss_peak_mb = self.usage.peak_mb()
        metrics.cpu_s = self.usage.cpu_s()
        return metrics

    def _update_rates(self, now_s: float) -> tuple[float, float]:
        """Return pairs/s and used CPU cores, updated at most once per second.

        Several clients that ask within a second receive the same rates.
        """
        mark_s, mark_pairs, mark_cpu_s = self._rate_mark
        elapsed_s = now_s - mark_s
        if elapsed_s >= RATE_WINDOW_S:
            cpu_s = self.usage.cpu_s()
            self._rates = (
                (self._pairs - mark_pairs) / elapsed_s,
                (cpu_s - mark_cpu_s) / elapsed_s,
            )
            self._rate_mark = (now_s, self._pairs, cpu_s)
        return self._rates


def set_distributions(metrics: pb.Metrics, recent_ms: NDArray[np.float64]) -> None:
    """Write the distributions of the columns of `Telemetry.recent_ms` into a message."""
    columns = (metrics.latency_ms, metrics.tokenize_ms, metrics.queue_ms, metrics.infer_ms)
    for distribution, values in zip(columns, _distributions(recent_ms), strict=True):
        distribution.CopyFrom(values)


def _distributions(recent_ms: NDArray[np.float64]) -> list[pb.Distribution]:
    """Return one distribution per column."""
    count, columns = recent_ms.shape
    if count == 0:
        return [pb.Distribution()] * columns
    means, percentiles = recent_ms.mean(axis=0), np.percentile(recent_ms, (50, 95, 99), axis=0)
    return [
        pb.Distribution(count=count, mean=mean, p50=p50, p95=p95, p99=p99)
        for mean, (p50, p95, p99) in zip(means, percentiles.T, strict=True)
    ]
