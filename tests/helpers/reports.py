"""Runs of sweeps with given values, as the reports read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossbench.measure.catalogue import throughput
from crossbench.measure.ranking import Verdict, shows_loss
from crossbench.measure.rate_windows import throughput_interval
from crossbench.measure.statistics import summarise, windows
from crossbench.report.cells import Run
from crossbench.results import RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.types import RequestRecord, Task

KEEPS = {
    "quality/ndcg_at_10_change": -0.002,
    "quality/ndcg_at_10_change_low": -0.006,
    "quality/ndcg_at_10_change_high": 0.001,
    "quality/judged_queries": 40.0,
    "quality/kendall_tau": 0.97,
}
CHANGES = {
    "quality/ndcg_at_10_change": -0.08,
    "quality/ndcg_at_10_change_low": -0.12,
    "quality/ndcg_at_10_change_high": -0.05,
    "quality/judged_queries": 40.0,
}


def run(
    pairs_per_s: float,
    p95_ms: float | None = None,
    *,
    backend: str = "packed",
    quant: str = "fp32",
    batch: int = 32,
    concurrency: int = 1,
    repeat: int = 1,
    n: int = 200,
    task: Task = Task.SCORE,
    paced: bool = False,
    study: str = "",
    baseline: Mapping[str, str] | None = None,
    status: Status = Status.FINISHED,
    bound_ms: float | None = None,
    pipeline: str = "full",
    **metrics: float,
) -> Run:
    """A run of `n` requests with equal latencies, except those that determine the p95."""
    config: dict[str, Any] = {
        "batch": batch, "concurrency": concurrency, "repeat": repeat, "pipeline": pipeline,
        "backend": {"_target_": f"made.{backend}", "name": backend}, "quant": {"name": quant},
        "report": {"latency_bound_ms": bound_ms}, "study": study, "baseline": baseline,
        "load": {"task": str(task), "rate": 10.0} if paced else {"task": str(task)},
    }  # fmt: skip
    name = f"{backend} {quant} {batch} {concurrency} {pipeline} {task}"
    if status != Status.FINISHED:
        return Run(name, RunResult(status, CellConfig(config), name, error="not here"))
    records = requests(pairs_per_s, p95_ms, batch, concurrency, n, repeat)
    rate = throughput(task.unit)
    found = {**summarise(records, task), rate.name: pairs_per_s, **metrics}
    found |= throughput_interval(records, rate, found)
    series = windows(records).series()
    quality = {"verdict": verdict(metrics).value}
    result = RunResult(
        status, CellConfig(config), name, metrics=found, series=series, quality=quality
    )
    return Run(name, result, records)


def verdict(metrics: Mapping[str, float]) -> Verdict:
    """The verdict for one of the metrics above; a cell without them was not judged."""
    if "quality/ndcg_at_10_change_high" not in metrics:
        return Verdict.UNSURE
    return (
        Verdict.CHANGES if shows_loss(metrics["quality/ndcg_at_10_change_high"]) else Verdict.KEEPS
    )


def requests(
    pairs_per_s: float, p95_ms: float | None, batch: int, concurrency: int, n: int, seed: int
) -> list[RequestRecord]:
    rng, gap_s = np.random.default_rng(seed), batch / pairs_per_s
    usual_ms = (p95_ms or 1e3 * gap_s * concurrency) / 1.02
    return [
        RequestRecord(
            i, due := i * gap_s, due, due + usual_ms / 1e3 * float(rng.uniform(0.98, 1.02)), batch,
            batch * 80, 0, usual_ms * 0.02, 0.1, usual_ms * 0.9, "OK",
        )
        for i in range(n)
    ]  # fmt: skip
