"""A server's counters in Prometheus's format: base units, `_total` for counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from crossbench.serving import inference_pb2 as pb

MB = 1e6
STAGES = ("tokenize", "queue", "infer")


class Totals(Protocol):
    """Counters since the last reset: the server's own metrics, or what a client keeps of them."""

    @property
    def requests_ok(self) -> int: ...
    @property
    def pairs(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def truncated_pairs(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def batch_pairs(self) -> int: ...
    @property
    def batch_tokens(self) -> int: ...
    @property
    def tokens_computed(self) -> int: ...
    @property
    def latency_sum_ms(self) -> float: ...


def server_families(
    totals: Totals, failed: Mapping[str, int], metrics: pb.Metrics
) -> Iterator[Metric]:
    """Yield the metrics of a server: `totals` and `failed` (by gRPC status), and what is now."""
    yield from _counters(totals, failed)
    yield CounterMetricFamily(
        "crossbench_cpu_seconds", "CPU time of the server's processes", metrics.cpu_s
    )
    yield _summary(
        "crossbench_latency_seconds",
        "Time from a request's arrival to its reply; quantiles of the last 30 s",
        [({}, metrics.latency_ms, totals.latency_sum_ms)],
        totals.requests_ok,
    )
    stages = [
        ({"stage": name}, getattr(metrics, f"{name}_ms"), getattr(totals, f"{name}_sum_ms"))
        for name in STAGES
    ]
    yield _summary(
        "crossbench_stage_seconds",
        "Time of a request in each stage; quantiles of the last 30 s",
        stages,
        totals.requests_ok,
    )
    yield from _gauges(metrics)


def _counters(totals: Totals, failed: Mapping[str, int]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "crossbench_requests", "Completed requests by gRPC status", labels=["status"]
    )
    for status, count in {"OK": totals.requests_ok, **failed}.items():
        requests.add_metric([status], count)
    yield requests
    for name, help_text, value in (
        ("pairs", "Pairs scored", totals.pairs),
        ("tokens", "Real tokens of the pairs", totals.tokens),
        ("truncated_pairs", "Pairs that were truncated", totals.truncated_pairs),
        ("batches", "Micro-batches that the model ran", totals.batches),
        ("batch_pairs", "Pairs in micro-batches", totals.batch_pairs),
        ("batch_tokens", "Real tokens in micro-batches", totals.batch_tokens),
        ("computed_tokens", "Tokens computed, including padding", totals.tokens_computed),
    ):
        yield CounterMetricFamily(f"crossbench_{name}", help_text, value)


def _gauges(metrics: pb.Metrics) -> Iterator[Metric]:
    gauges = [
        ("throughput_pairs_per_second", "Pairs/s over the last second", metrics.pairs_per_s),
        ("queue_pairs", "Pairs waiting for the model", metrics.queue_pairs),
        ("requests_in_flight", "Requests in the server", metrics.requests_in_flight),
        ("cpu_cores", "Cores in use over the last second", metrics.cpu_cores),
        ("resident_memory_bytes", "Resident set size", metrics.rss_mb * MB),
        ("resident_memory_peak_bytes", "Peak resident set size", metrics.rss_peak_mb * MB),
    ]
    if metrics.HasField("device_memory_mb"):
        used = metrics.device_memory_mb * MB
        gauges.append(("device_memory_bytes", "Device memory of the model", used))
    for name, help_text, value in gauges:
        yield GaugeMetricFamily(f"crossbench_{name}", help_text, value)


def _summary(
    name: str,
    help_text: str,
    rows: list[tuple[dict[str, str], pb.Distribution, float]],
    count: int,
) -> Metric:
    """A summary metric: recent quantiles in seconds, and sum and count since the last reset."""
    family = Metric(name, help_text, "summary")
    for labels, recent, sum_ms in rows:
        if recent.count:
            for quantile, value in (
                ("0.5", recent.p50),
                ("0.95", recent.p95),
                ("0.99", recent.p99),
            ):
                family.add_sample(name, {**labels, "quantile": quantile}, value / 1e3)
        family.add_sample(f"{name}_sum", labels, sum_ms / 1e3)
        family.add_sample(f"{name}_count", labels, count)
    return family


class ServerCollector(Collector):
    """Collects a server's own counters."""

    def __init__(self, metrics: pb.Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return server_families(self._metrics, self._metrics.requests_failed, self._metrics)
