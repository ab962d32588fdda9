"""Runs of open and closed loops with known latencies, as reports read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from crossbench.measure.statistics import summarise
from crossbench.measure.steps import Step
from crossbench.report.cells import Run
from crossbench.results import Flag, RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.types import RequestRecord
from tests.helpers.records import record

REASONS = {
    Flag.OVER_SATURATED: "requests were due at 20 per second, and the server answered 12.",
    Flag.CLIENT_BOUND: "the client used 98 % of its core.",
    Flag.DISTURBED: "other processes used 1.4 of 2 cores.",
}


def open_loop(rate: float, usual_ms: float, n: int, seed: int = 0) -> list[RequestRecord]:
    """Poisson arrivals whose independent latencies vary by 10 % and have a p95 of 1.1 usual."""
    rng = np.random.default_rng(seed)
    due_s = np.cumsum(rng.exponential(1 / rate, n))
    latency_s = usual_ms / 1e3 * rng.uniform(0.9, 1.1, n)
    return [
        record(due, due + latency, index=i, infer_ms=latency * 900)
        for i, (due, latency) in enumerate(zip(due_s.tolist(), latency_s.tolist(), strict=True))
    ]


def run(
    name: str,
    records: Sequence[RequestRecord],
    load: Mapping[str, Any],
    *flags: Flag,
    backend: str = "onnx",
    bound_ms: float | None = None,
    repeat: int = 1,
    steps: Sequence[Step] = (),
    **metrics: float,
) -> Run:
    config = CellConfig({
        "batch": 10, "concurrency": 1, "repeat": repeat,
        "backend": {"_target_": f"made.{backend}", "name": backend}, "quant": {"name": "fp32"},
        "load": dict(load), "report": {"latency_bound_ms": bound_ms},
    })  # fmt: skip
    result = RunResult(
        Status.FINISHED, config, config.cell_id, metrics={**summarise(records), **metrics},
        flags={flag: REASONS[flag] for flag in flags}, steps=[asdict(step) for step in steps],
        model={"computes_scores": True},
        warnings=[f"Over-saturated: {REASONS[flag]} Give a lower rate" for flag in flags
                  if flag is Flag.OVER_SATURATED],
    )  # fmt: skip
    return Run(name, result, list(records))


def poisson(rate: float) -> dict[str, Any]:
    return {"name": "poisson", "labels": ["load", "load.rate"], "rate": rate, "cv": 1}


CLOSED = {"name": "closed", "labels": ["concurrency"]}
