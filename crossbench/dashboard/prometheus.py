"""The board in Prometheus's words: base units, `_total` for counters, `_info` for facts."""

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
from crossbench.dashboard.document import STAGES, server_facts
from crossbench.serving import inference_pb2 as pb

MB = 1e6


@dataclass(frozen=True)
class BoardCollector:
    """Asked by prometheus_client at every scrape. A server that is gone has no figures but `up`."""

    board: Board

    def collect(self) -> Iterator[Metric]:
        board = self.board
        up = GaugeMetricFamily("crossbench_up", "1 while the server answers, else 0")
        up.add_metric([], float(board.linked))
        yield up
        yield from self._sweep()
        if not board.linked or board.last is None:
            return
        facts = {key: str(value) for key, value in server_facts(board.info).items()}
        yield InfoMetricFamily("crossbench_server", "What is served and on what", facts)
        yield from self._counters()
        yield from self._now(board.last.metrics)
        yield from self._gpus()

    def _counters(self) -> Iterator[Metric]:
        board, totals = self.board, self.board.totals
        requests = CounterMetricFamily(
            "crossbench_requests", "Requests that ended, by gRPC status", labels=["status"]
        )
        for status, count in {"OK": totals.requests_ok, **board.failed}.items():
            requests.add_metric([status], count)
        yield requests
        for name, words, value in (
            ("pairs", "Pairs scored", totals.pairs),
            ("tokens", "Real tokens of the pairs", totals.tokens),
            ("truncated_pairs", "Pairs that lost tokens", totals.truncated_pairs),
            ("batches", "Micro-batches that the model ran", totals.batches),
            ("batch_pairs", "Pairs in micro-batches", totals.batch_pairs),
            ("batch_tokens", "Real tokens in micro-batches", totals.batch_tokens),
            ("computed_tokens", "Positions computed, with padding", totals.tokens_computed),
        ):
            yield CounterMetricFamily(f"crossbench_{name}", words, value)

    def _now(self, metrics: pb.Metrics) -> Iterator[Metric]:
        totals = self.board.totals
        yield CounterMetricFamily(
            "crossbench_cpu_seconds", "CPU time of the server's processes", metrics.cpu_s
        )
        yield _summary(
            "crossbench_latency_seconds",
            "From a request's arrival to its answer; quantiles of the last 30 s",
            [({}, metrics.latency_ms, totals.latency_sum_ms)],
            totals.requests_ok,
        )
        stages = [
            ({"stage": name}, getattr(metrics, f"{name}_ms"), getattr(totals, f"{name}_sum_ms"))
            for name in STAGES
        ]
        yield _summary(
            "crossbench_stage_seconds",
            "Where a request's time went; quantiles of the last 30 s",
            stages,
            totals.requests_ok,
        )
        gauges = [
            ("throughput_pairs_per_second", "Pairs/s over the last second", metrics.pairs_per_s),
            ("queue_pairs", "Pairs that wait for the model", metrics.queue_pairs),
            ("requests_in_flight", "Requests in the server", metrics.requests_in_flight),
            ("cpu_cores", "Cores in use over the last second", metrics.cpu_cores),
            ("resident_memory_bytes", "Resident set", metrics.rss_mb * MB),
            ("resident_memory_peak_bytes", "Largest resident set", metrics.rss_peak_mb * MB),
        ]
        if metrics.HasField("device_memory_mb"):
            used = metrics.device_memory_mb * MB
            gauges.append(("device_memory_bytes", "Device memory of the model", used))
        for name, words, value in gauges:
            yield GaugeMetricFamily(f"crossbench_{name}", words, value)

    def _gpus(self) -> Iterator[Metric]:
        gpus = self.board.last.gpus if self.board.last else ()
        if not gpus:
            return
        labels = ["gpu", "name"]
        busy = GaugeMetricFamily("crossbench_gpu_utilization_ratio", "0 to 1", labels=labels)
        used = GaugeMetricFamily("crossbench_gpu_memory_used_bytes", "In use", labels=labels)
        total = GaugeMetricFamily("crossbench_gpu_memory_bytes", "There is", labels=labels)
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
            "crossbench_sweep_cells_ended", "Cells by how they ended", labels=["status"]
        )
        for status, count in Counter(row.status for row in board.done).items():
            ended.add_metric([status], count)
        yield ended
        if board.windows:
            window = board.windows[-1]
            yield GaugeMetricFamily(
                "crossbench_client_throughput_pairs_per_second",
                "Pairs/s over the last second as the client saw it",
                window.pairs_per_s,
            )
            latency = GaugeMetricFamily(
                "crossbench_client_latency_seconds",
                "Latency of the last second as the client saw it",
                labels=["quantile"],
            )
            of_client = {"0.5": window.p50_ms, "0.95": window.p95_ms, "0.99": window.p99_ms}
            for quantile, value in of_client.items():
                if value is not None:
                    latency.add_metric([quantile], value / 1e3)
            yield latency


def exposition(board: Board, accept: str) -> tuple[bytes, str]:
    """The text in the format that `accept` prefers (OpenMetrics or the older one), and its type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoardCollector(board))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def _summary(
    name: str,
    words: str,
    rows: list[tuple[dict[str, str], pb.Distribution, float]],
    count: int,
) -> Metric:
    """Quantiles in seconds, with the sum and count over everything since the reset."""
    family = Metric(name, words, "summary")
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
