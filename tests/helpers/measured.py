"""Results of finished cells with chosen metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, REQUESTS_OK, RSS_PEAK_MB
from crossbench.results import Flag, RunResult, Status
from crossbench.settings.cell_config import CellConfig

MACHINE = {
    "host": "bench-1", "cpu": "Fast", "cores_usable": 2, "gpus": [], "os": "Linux",
    "python": "3.11.7", "versions": {"torch": "2.5", "onnxruntime": "1.20"}, "git_commit": "abc",
}  # fmt: skip


def measured(
    rate: float,
    p95_ms: float = 50.0,
    memory_mb: float = 500.0,
    *flags: Flag,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] = MACHINE,
    model: str = "feed",
    dataset: str = "beef",
    requests: int = 200,
    verdict: str | None = None,
    started_at: str = "2026-11-26T12:00:00+00:00",
) -> RunResult:
    cell = CellConfig({
        "backend": {"name": "onnx"}, "quant": {"name": "fp32"}, "batch": 8, "concurrency": 1,
        **(config or {}),
    })  # fmt: skip
    return RunResult(
        Status.FINISHED,
        cell,
        cell.cell_id,
        metrics={
            PAIRS_PER_S.name: rate,
            P95_LATENCY.name: p95_ms,
            RSS_PEAK_MB.name: memory_mb,
            REQUESTS_OK.name: requests,
        },
        environment=environment,
        model={"name": "m", "digest": model, "computes_scores": True},
        dataset={"name": "d", "digest": dataset},
        quality={} if verdict is None else {"verdict": verdict, "reason": "as checked"},
        flags=dict.fromkeys(flags, "as measured"),
        started_at=started_at,
    )
