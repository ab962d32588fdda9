"""GET /metrics: the server's counters as Prometheus's text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.prometheus import server_families


@dataclass(frozen=True, eq=False)  # compared by identity: a message has no hash
class _Collector:
    metrics: pb.Metrics

    def collect(self) -> Iterator[Metric]:
        return server_families(self.metrics, self.metrics.requests_failed, self.metrics)


def exposition(metrics: pb.Metrics, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that `accept` prefers (OpenMetrics or Prometheus text), and
    its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # invalid version
        encode, content_type = choose_encoder("")
    return encode(registry), content_type
