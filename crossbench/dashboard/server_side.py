"""The server's side of the board: its messages, and its counters since the last reset."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from crossbench.dashboard.figures import Counters, GpuUse, Sample, server_facts
from crossbench.serving import inference_pb2 as pb

HISTORY = 180  # samples, one per second
RATE_WINDOW_S = 5.0


class ServerSide:
    """The messages of one server after another."""

    def __init__(self) -> None:
        self.facts: Mapping[str, Any] = {}  # of the server that answered last
        self.last: Sample | None = None  # of the present server
        self.samples: deque[Sample] = deque(maxlen=HISTORY)
        self.cpu_at_restart_s = 0.0  # the server's CPU time when its counters were at zero
        self._counters_at_reset = Counters.zero()
        self._failed_at_reset: Counter[str] = Counter()
        self._reset_s = self._restarted_s = 0.0  # of the counters, and Unix

    def connected(self, info: pb.ServerInfo) -> None:
        """Note that a server answers."""
        self.facts, self.last = server_facts(info), None
        self._counters_at_reset, self._failed_at_reset = Counters.zero(), Counter()

    def sample(self, metrics: pb.Metrics, gpus: tuple[GpuUse, ...], time_s: float) -> None:
        """Add one metrics message of the server; there is one per second."""
        counters = Counters.of(metrics)
        last = self.last
        restarted = last is None or metrics.since_reset_s < last.metrics.since_reset_s
        if restarted or last is None:  # another server, or its counters were reset
            interval = counters
            self._counters_at_reset, self._failed_at_reset = Counters.zero(), Counter()
            self._reset_s, self._restarted_s = 0.0, time_s
            self.cpu_at_restart_s = metrics.cpu_s - metrics.cpu_cores * metrics.since_reset_s
        else:
            interval = counters - Counters.of(last.metrics)
        speed = None if restarted else self._pairs_per_s(metrics)
        cores = metrics.cpu_cores if metrics.since_reset_s > 1.0 else None
        self.last = Sample(time_s, metrics, interval, speed, cores, gpus)
        self.samples.append(self.last)

    def _pairs_per_s(self, now: pb.Metrics) -> float | None:
        """Throughput over the last seconds, back to the last restart of the counters at most."""
        before = now
        for sample in reversed(self.samples):
            elapsed_s = now.since_reset_s - sample.metrics.since_reset_s
            is_before = sample.time_s < self._restarted_s
            if is_before or not 0 < elapsed_s <= RATE_WINDOW_S + 0.5:
                break
            before = sample.metrics
        elapsed_s = now.since_reset_s - before.since_reset_s
        return (now.pairs - before.pairs) / elapsed_s if elapsed_s else None

    def forget(self) -> None:
        """Forget the server's messages, as its counters have been reset."""
        self.last = None
        self.samples.clear()

    def reset(self) -> None:
        """Count from now on; the server itself continues to count."""
        self.samples.clear()
        if self.last is None:
            return
        self._counters_at_reset = Counters.of(self.last.metrics)
        self._failed_at_reset = Counter(dict(self.last.metrics.requests_failed))
        self._reset_s = self.last.metrics.since_reset_s
        # The next interval starts here
        self.last = dataclasses.replace(self.last, interval=Counters.zero())
        self.samples.append(self.last)

    @property
    def has_device(self) -> bool:
        """Whether there is a GPU, or device memory that the server reports (mps, mlx)."""
        last = self.samples[-1] if self.samples else None
        return last is not None and bool(last.gpus or last.metrics.HasField("device_memory_mb"))

    @property
    def totals(self) -> Counters:
        """The server's counters since the last reset."""
        return (
            Counters.of(self.last.metrics) - self._counters_at_reset
            if self.last
            else Counters.zero()
        )

    @property
    def failed(self) -> dict[str, int]:
        """Failed requests by gRPC status since the last reset, as counted by the server."""
        if self.last is None:
            return {}
        counted = Counter(dict(self.last.metrics.requests_failed))
        return dict(counted - self._failed_at_reset)

    @property
    def since_reset_s(self) -> float:
        return self.last.metrics.since_reset_s - self._reset_s if self.last else 0.0
