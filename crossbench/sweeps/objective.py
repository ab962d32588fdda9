"""The objective of a search: `objective=throughput/pairs_per_s` with `hydra/sweeper=optuna`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from crossbench.errors import ConfigError, ResultError
from crossbench.measure.catalogue import METRICS, P95_LATENCY, PAIRS_PER_S
from crossbench.measure.metric import Better, Metric
from crossbench.measure.ranking import Verdict, ranks_safely
from crossbench.results import Flag, RunResult, load_result
from crossbench.settings.composition_errors import did_you_mean
from crossbench.sweeps.services import console
from crossbench.types import Quant

_DIRECTIONS = {"maximize": True, "minimize": False}


@dataclass(frozen=True, slots=True)
class Objective:
    """The metric that a search optimises, and which way."""

    metric: Metric
    maximize: bool

    @property
    def direction(self) -> str:
        """Optuna's word for the direction."""
        return "maximize" if self.maximize else "minimize"

    @property
    def worst(self) -> float:
        """The value of a cell that cannot be the best, in the unit of the metric."""
        return float("-inf") if self.maximize else float("inf")

    def value(self, result: RunResult, others: Sequence[Path] = ()) -> float:
        """Return the value of a cell; the worst one if `disqualified` says why."""
        unfit = self.disqualified(result, others)
        return self.worst if unfit else result.metrics[self.metric.name]

    def counted(self, result: RunResult, others: Sequence[Path]) -> float:
        """Return the value of a cell; print why, if it does not count."""
        if result.metrics and (why := self.disqualified(result, others)):
            console.print(escape(f"objective {self.metric.name}: not counted, because {why}"))
        return self.value(result, others)

    def disqualified(self, result: RunResult, others: Sequence[Path] = ()) -> str:
        """Return why a cell cannot be the best, whatever its value; empty if it can.

        A bound on p95 (`report.latency_bound_ms`) and the ranking count for every objective. As in
        reports, a lower precision that was not verified counts only while none of the `others`, the
        folders of other cells, ranks safely.
        """
        if not result.metrics:
            return f"{result.status}: {result.error or 'it has no metrics'}"
        if self.metric.name not in result.metrics:
            return f"it has no {self.metric.name}"
        if Flag.OVER_SATURATED in result.flags:
            return "it is over-saturated"
        if result.quality.get("verdict") == Verdict.CHANGES:
            return "it changes the ranking"
        if not _is_safe(result) and any(map(is_safe_cell, others)):
            return "its ranking is not verified, but that of another cell is safe"
        bound_ms = result.config.value("report.latency_bound_ms")
        p95_ms = result.metrics.get(P95_LATENCY.name)
        if bound_ms is not None and (p95_ms is None or p95_ms > bound_ms):
            p95 = f"its p95 is {P95_LATENCY.text(p95_ms)} ms" if p95_ms else "it has no p95"
            return f"{p95}, and report.latency_bound_ms={bound_ms:g}"
        return ""


def is_safe_cell(folder: Path) -> bool:
    """Whether the cell in a folder was measured and ranks safely, see `ranks_safely`."""
    try:
        return _is_safe(load_result(folder))
    except ResultError:  # it is still running, or its result could not be written
        return False


def _is_safe(result: RunResult) -> bool:
    verdict = Verdict(result.quality.get("verdict", Verdict.UNCHECKED))
    quant = result.config.value("quant", Quant.FP32)
    measured = bool(result.metrics) and Flag.OVER_SATURATED not in result.flags
    return measured and ranks_safely(verdict, quant)


def read_objective(config: DictConfig) -> Objective | None:
    """Return the objective of a sweep's config, None if it has none. `config` has its `hydra` node.

    Raises:
        ConfigError: there is no such metric, or it has no better direction and none is given.
    """
    if config.objective is None:
        return None
    name = str(config.objective)
    known = {metric.name: metric for metric in METRICS}
    if name not in known:
        raise ConfigError(
            f"objective={name} is not a metric of a cell.{did_you_mean(name, list(known))} Give "
            f"one of docs/metrics.md, such as objective={PAIRS_PER_S.name}"
        )
    metric = known[name]
    given = OmegaConf.select(config, "hydra.sweeper.direction")
    if given is None and metric.better is Better.NEITHER:
        raise ConfigError(
            f"objective={name}: neither high nor low values are better, so give "
            "hydra.sweeper.direction=maximize or minimize"
        )
    if given is None:
        return Objective(metric, metric.better is Better.HIGHER)
    if str(given) not in _DIRECTIONS:
        raise ConfigError(
            f"hydra.sweeper.direction={given} is not a direction: give maximize or minimize, or "
            "leave it out"
        )
    return Objective(metric, _DIRECTIONS[str(given)])
