"""The metrics of a collector as Prometheus's text, for the HTTP port and the live page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that `accept` prefers (OpenMetrics or Prometheus text), and
    its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # invalid version
        encode, content_type = choose_encoder("")
    return encode(registry), content_type
