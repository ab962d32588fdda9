"""Counters of the server, and the figures of the interval between two of its messages."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from crossbench.serving import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of a server; they only decrease when they are reset."""

    requests_ok: int
    pairs: int
    tokens: int
    truncated_pairs: int
    batches: int
    batch_pairs: int
    batch_tokens: int
    tokens_computed: int
    latency_sum_ms: float
    tokenize_sum_ms: float
    queue_sum_ms: float
    infer_sum_ms: float

    @classmethod
    def of(cls, metrics: pb.Metrics) -> Counters:
        return cls(**{item.name: getattr(metrics, item.name) for item in fields(cls)})

    @classmethod
    def zero(cls) -> Counters:
        return cls(**{item.name: 0 for item in fields(cls)})

    def __sub__(self, before: Counters) -> Counters:
        difference = {
            item.name: getattr(self, item.name) - getattr(before, item.name)
            for item in fields(self)
        }
        return Counters(**difference)

    @property
    def padding_waste(self) -> float | None:
        """Share of the computed tokens that were padding, 0 to 1; None if none were computed."""
        return 1.0 - self.batch_tokens / self.tokens_computed if self.tokens_computed else None

    @property
    def pairs_per_batch(self) -> float | None:
        return self.batch_pairs / self.batches if self.batches else None

    def mean_ms(self, stage: str) -> float | None:
        """Mean of `latency`, `tokenize`, `queue` or `infer` per request; None without requests."""
        total_ms: float = getattr(self, f"{stage}_sum_ms")
        return total_ms / self.requests_ok if self.requests_ok else None


@dataclass(frozen=True, slots=True)
class GpuUse:
    """The state of one GPU from NVML; memory in MB (1e6 bytes), utilisation 0 to 1."""

    index: int
    name: str
    utilization: float
    memory_used_mb: float
    memory_total_mb: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of a server; `interval` has the counts since the previous sample.

    `pairs_per_s` covers several seconds, as single seconds fluctuate if a request takes that long.
    It and `cores` are None during the first second.
    """

    time_s: float  # Unix
    metrics: pb.Metrics
    interval: Counters
    pairs_per_s: float | None
    cores: float | None
    gpus: tuple[GpuUse, ...]


@dataclass(frozen=True, slots=True)
class ClientWindow:
    """About one second measured by the client; percentiles in ms, None if no request succeeded.

    `so_far_per_s` is the throughput of the whole measurement up to then.
    """

    time_s: float  # Unix
    requests: int
    pairs_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    so_far_per_s: float | None


def server_facts(info: pb.ServerInfo) -> dict[str, Any]:
    """Facts about the server and its first model."""
    served = info.models[0] if info.models else pb.ModelInfo()
    return {
        "model": served.name,
        "backend": served.backend,
        "quant": served.quant,
        "device": served.device,
        "scheduler": info.scheduler,
        "workers": info.workers,
        "threads": info.threads,
        "max_length": served.max_length,
        "version": info.version,
    }
