"""The board in Prometheus's format: base units, `_total` for counters, `_info` for facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from crossbench.dashboard.board import Board
from crossbench.dashboard.document import STAGES
from crossbench.serving import inference_pb2 as pb

MB = 1e6


@dataclass(frozen=True)
class BoardCollector:
    """Collects the metrics of each scrape. A server that is gone has only `up`."""

    board: Board

    def collect(self) -> Iterator[Metric]:
        board = self.board
        up = GaugeMetricFamily("crossbench_up", "1 while the server answers, else 0")
        up.add_metric([], float(board.is_connected))
        yield up
        yield from self._sweep()
        if not board.is_connected or board.server.last is None:
            return
        facts = {key: str(value) for key, value in board.server.facts.items()}
        yield InfoMetricFamily("crossbench_server", "Model, backend, precision and device", facts)
        yield from self._counters()
        yield from self._now(board.server.last.metrics)
        yield from self._gpus()

    def _counters(self) -> Iterator[Metric]:
        board, totals = self.board, self.board.server.totals
        requests = CounterMetricFamily(
            "crossbench_requests", "Completed requests by gRPC status", labels=["status"]
        )
        for status, count in {"OK": totals.requests_ok, **board.server.failed}.items():
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

    def _now(self, metrics: pb.Metrics) -> Iterator[Metric]:
        totals = self.board.server.totals
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

    def _gpus(self) -> Iterator[Metric]:
        gpus = self.board.server.last.gpus if self.board.server.last else ()
        if not gpus:
            return
        labels = ["gpu", "name"]
        busy = GaugeMetricFamily(
            "crossbench_gpu_utilization_ratio", "GPU utilisation, 0 to 1", labels=labels
        )
        used = GaugeMetricFamily(
            "crossbench_gpu_memory_used_bytes", "GPU memory in use", labels=labels
        )
        total = GaugeMetricFamily("crossbench_gpu_memory_bytes", "Total GPU memory", labels=labels)
        for gpu in gpus:
            key = [str(gpu.index), gpu.name]
            busy.add_metric(key, gpu.utilization)
            used.add_metric(key, gpu.memory_used_mb * MB)
            total.add_metric(key, gpu.memory_total_mb * MB)
        yield from (busy, used, total)

    def _sweep(self) -> Iterator[Metric]:
        board = self.board
        if not board.cells_planned:
            return
        yield GaugeMetricFamily("crossbench_sweep_cells", "Cells planned", board.cells_planned)
        ended = GaugeMetricFamily(
            "crossbench_sweep_cells_ended", "Ended cells by status", labels=["status"]
        )
        for status, count in Counter(row.status for row in board.done).items():
            ended.add_metric([status], count)
        yield ended
        if (window := board.window) is not None:
            yield GaugeMetricFamily(
                "crossbench_client_throughput_pairs_per_second",
                "Pairs/s over the last second, measured by the client",
                window.pairs_per_s,
            )
            latency = GaugeMetricFamily(
                "crossbench_client_latency_seconds",
                "Latency over the last second, measured by the client",
                labels=["quantile"],
            )
            of_client = {"0.5": window.p50_ms, "0.95": window.p95_ms, "0.99": window.p99_ms}
            for quantile, value in of_client.items():
                if value is not None:
                    latency.add_metric([quantile], value / 1e3)
            yield latency


def exposition(board: Board, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that `accept` prefers (OpenMetrics or Prometheus text), and
    its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoardCollector(board))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # invalid version
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


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
