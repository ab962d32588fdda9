"""What several replicas tell about themselves, as if they were one server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.telemetry import set_distributions

# All other numbers of a message are added
_LARGEST = frozenset({"uptime_s"})
_SMALLEST = frozenset({"since_reset_s"})


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """CPU time since its start, memory and peak memory of a process that is no replica."""

    cpu_s: float
    rss_mb: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class ReplicaCounters:
    """The counters of one replica.

    `recent_ms` are the timings behind its distributions, see `Telemetry.recent_ms`. `processes` are
    the proxies on its machine, by machine and process id: other replicas may tell of them too.
    """

    metrics: pb.Metrics
    recent_ms: NDArray[np.float64]
    processes: Mapping[tuple[str, int], ProcessUse] = field(default_factory=dict)


def merged_metrics(parts: Sequence[ReplicaCounters], replicas: int) -> pb.Metrics:
    """Return the sum of the counters of at least one replica, of `replicas` that there should be.

    The distributions are those of all recent requests. Since the latest reset counts from the
    replica that was reset, or started, last.
    """
    merged = pb.Metrics()
    for column in pb.Metrics.DESCRIPTOR.fields:
        if column.name == "requests_failed":
            for part in parts:
                for status, count in part.metrics.requests_failed.items():
                    merged.requests_failed[status] += count
        elif column.message_type is None:
            told = [
                getattr(part.metrics, column.name)
                for part in parts
                if not column.has_presence or part.metrics.HasField(column.name)
            ]
            if told:
                combine = max if column.name in _LARGEST else sum
                combine = min if column.name in _SMALLEST else combine
                setattr(merged, column.name, combine(told))
    set_distributions(merged, np.concatenate([part.recent_ms for part in parts]))
    for use in processes_of(parts).values():
        merged.cpu_s += use.cpu_s
        merged.rss_mb += use.rss_mb
        merged.rss_peak_mb += use.peak_mb
    merged.replicas = len(parts)
    merged.replicas_missing = max(0, replicas - len(parts))
    return merged


def processes_of(parts: Sequence[ReplicaCounters]) -> dict[tuple[str, int], ProcessUse]:
    """Return each process that the replicas tell of once."""
    return {key: use for part in parts for key, use in part.processes.items()}


def merged_info(infos: Sequence[pb.ServerInfo]) -> pb.ServerInfo:
    """Return the description of at least one replica, all with the same models.

    Workers and memory are added; the time of loading is that of the slowest replica.
    """
    merged = pb.ServerInfo()
    merged.CopyFrom(infos[0])
    merged.workers = sum(info.workers for info in infos)
    starts = [info.startup for info in infos]
    merged.startup.load_s = max(start.load_s for start in starts)
    merged.startup.compile_s = max(start.compile_s for start in starts)
    merged.startup.rss_before_load_mb = sum(start.rss_before_load_mb for start in starts)
    merged.startup.rss_after_load_mb = sum(start.rss_after_load_mb for start in starts)
    merged.startup.rss_load_peak_mb = sum(start.rss_load_peak_mb for start in starts)
    return merged
