"""The board in Prometheus's format: base units, `_total` for counters, `_info` for facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from crossbench.dashboard.board import Board
from crossbench.serving.prometheus import MB, server_families


@dataclass(frozen=True)
class BoardCollector(Collector):
    """Collects the metrics of each scrape. A server that is gone has only `up`."""

    board: Board

    def collect(self) -> Iterator[Metric]:
        board = self.board
        up = GaugeMetricFamily("crossbench_up", "1 while the server answers, else 0")
        up.add_metric([], float(board.is_connected))
        yield up
        yield from self._sweep()
        server = board.server
        if not board.is_connected or server.last is None:
            return
        facts = {key: str(value) for key, value in server.facts.items()}
        yield InfoMetricFamily("crossbench_server", "Model, backend, precision and device", facts)
        yield from server_families(server.totals, server.failed, server.last.metrics)
        yield from self._gpus()

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
