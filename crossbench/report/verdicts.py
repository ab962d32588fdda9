"""Verdicts on the differences between a sweep's cells: in throughput, p95 and peak memory.

`measure.contrasts` has the statistics, `metric_verdicts` the verdicts on one metric in words. Here
the cells that can be compared are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, RSS_PEAK_MB
from crossbench.measure.contrasts import ALPHA, Allowance, compare_cells
from crossbench.measure.metric import Metric
from crossbench.measure.multiplicity import alpha_of_look
from crossbench.report.allowance import read_allowance
from crossbench.report.cells import CellSummary, Run, cell_throughput, compared_unit
from crossbench.report.machines import machines_of
from crossbench.report.metric_verdicts import MetricVerdicts
from crossbench.report.summaries import log_values, p95_estimate
from crossbench.results import Status
from crossbench.settings.baseline import is_baseline
from crossbench.settings.places import conf_dir
from crossbench.settings.stored_plan import FIRST_LOOK

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class SweepVerdicts:
    """The verdicts of a sweep.

    `baseline` is the cell that others are compared with, None if no cell can be compared. `named`
    says whether the user named one, and `note` why it is not that one. `source` says how the spread
    is known if it was not measured by repeats. `blocks` counts the repeats of the cell that has
    most, and `level` is the confidence of the intervals: 0.95, or more if the sweep was looked at
    after each block.
    """

    throughput: MetricVerdicts
    p95: MetricVerdicts
    memory: MetricVerdicts
    baseline: CellSummary | None
    named: bool
    note: str
    source: str
    blocks: int
    level: float

    @property
    def spread_is_measured(self) -> bool:
        """Whether the repeats show the spread: of throughput, else of the first metric compared."""
        first = next((metric for metric in self.metrics if len(metric.cells) > 1), self.throughput)
        return first.contrasts.spread_is_measured

    @property
    def metrics(self) -> tuple[MetricVerdicts, ...]:
        return (self.throughput, self.p95, self.memory)


def sweep_verdicts(cells: Sequence[CellSummary]) -> SweepVerdicts:
    """Return the verdicts of a sweep, from its cells in their order."""
    runs = [run for cell in cells for run in cell.runs]
    margin = _setting(runs, "margin")
    allowances, alpha = _allowances(runs), _alpha(runs)
    served = [cell for cell in cells if cell.computes_scores]
    # A server without a model is no alternative, and its spread is not that of the others
    compared = served if any(cell.throughput for cell in served) else cells
    unit = compared_unit(compared)
    compared = [cell for cell in compared if cell.unit == unit]
    of_server = [cell for cell in compared if _has_own_throughput(cell)]
    ranked = [cell for cell in compared if cell.ranked_p95 is not None and not cell.is_ramp]
    measured = [cell for cell in compared if cell.metrics.get(RSS_PEAK_MB.name)]

    def verdicts(
        metric: Metric,
        compared: Sequence[CellSummary],
        metric_of: Callable[[CellSummary], Metric],
        within_sd: Callable[[CellSummary], float],
    ) -> MetricVerdicts:
        values = log_values(compared, metric_of)
        contrasts = compare_cells(
            values,
            within_sd=_column(compared, within_sd, values),
            allowance=allowances[metric.name],
            margin=margin,
            alpha=alpha,
        )
        return MetricVerdicts(metric, tuple(compared), contrasts, margin)

    baseline, named, note = find_baseline(cells, of_server or ranked)
    return SweepVerdicts(
        throughput=verdicts(PAIRS_PER_S, of_server, cell_throughput, _throughput_sd),
        p95=verdicts(P95_LATENCY, ranked, lambda cell: P95_LATENCY, _p95_sd),
        memory=verdicts(RSS_PEAK_MB, measured, lambda cell: RSS_PEAK_MB, lambda cell: 0.0),
        baseline=baseline,
        named=named,
        note=note,
        source=allowances[PAIRS_PER_S.name].source,
        blocks=max((cell.blocks for cell in compared), default=0),
        level=1 - alpha,
    )


def find_baseline(
    cells: Sequence[CellSummary], compared: Sequence[CellSummary]
) -> tuple[CellSummary | None, bool, str]:
    """Return the cell that others are compared with, whether one was named, and a note on it.

    It is the one with the values of the config key `baseline`, else the first in the sweep's order
    that can be compared and does not change the ranking.
    """
    if not compared:
        return None, False, ""
    first = next((cell for cell in compared if not cell.disqualified), compared[0])
    wanted = next(
        (asked for cell in cells for run in cell.runs
         if (asked := run.result.config.section("baseline"))), {},
    )  # fmt: skip
    if not wanted:
        return first, False, ""
    for cell in compared:
        if is_baseline(wanted, cell.flat):
            return cell, True, ""
    name = ", ".join(f"{key}={value}" for key, value in wanted.items())
    note = (
        f"The baseline ({name}) has no result that can be compared, so the cells are compared with "
        f"{first.label} instead."
    )
    return first, True, note


def _has_own_throughput(cell: CellSummary) -> bool:
    """Whether the cell's throughput is the server's, not that of an open loop."""
    unfit = cell.is_paced or cell.is_ramp or cell.over_saturated
    return cell.throughput is not None and not unfit


def _setting(runs: Sequence[Run], key: str) -> float:
    """The largest value of a key of `report` in the runs' configs, or the default of conf/."""
    found = [run.result.config.value(f"report.{key}") for run in runs]
    values = [float(value) for value in found if value is not None]
    return max(values) if values else _default(key)


def _allowances(runs: Sequence[Run]) -> Mapping[str, Allowance]:
    """The spread from run to run of each metric, by its name: the widest of the runs' machines."""
    configs = [run.result.config for run in runs if run.result.config]
    cache = next((str(found) for config in configs if (found := config.value("cache_dir"))), "")
    backends = {str(config.value("backend")) for config in configs}
    folder, spread = Path(cache).expanduser() if cache else Path(), _setting(runs, "spread")
    environments = [found[0].result.environment for found in machines_of(runs).values()]
    of_machines = [
        read_allowance(folder, environment, spread, backends)
        for environment in environments or [{}]
    ]
    return {
        name: max((found[name] for found in of_machines), key=lambda found: found.relative_sd)
        for name in of_machines[0]
    }


def _alpha(runs: Sequence[Run]) -> float:
    """The probability of an error: 5 %, or the share of it that the last look may spend.

    A sweep with `until_decided` is looked at after each block.
    """
    configs = [run.result.config for run in runs]
    looked_at = [config for config in configs if config.value("until_decided")]
    if not looked_at:
        return ALPHA
    most = max(int(config.value("max_repeats")) for config in looked_at)
    block = max(int(config.value("repeat", 0)) for config in configs if config)
    return alpha_of_look(min(max(block, FIRST_LOOK), most), most, FIRST_LOOK, ALPHA)


def _default(key: str) -> float:
    return float(OmegaConf.load(conf_dir() / "config.yaml").report[key])


def _column(
    cells: Sequence[CellSummary],
    within_sd: Callable[[CellSummary], float],
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The standard deviation within each cell's run, on the log scale, (cells, blocks)."""
    column = np.array([within_sd(cell) for cell in cells]).reshape(-1, 1)
    return np.broadcast_to(column, values.shape)


def _throughput_sd(cell: CellSummary) -> float:
    run, metric = _first(cell), cell_throughput(cell)
    ends, value = metric.interval(run.result.metrics), run.result.metrics[metric.name]
    return 0.0 if ends is None else (ends[1] - ends[0]) / 2 / _NORMAL_95 / value


def _p95_sd(cell: CellSummary) -> float:
    run = _first(cell)
    found = p95_estimate(run.result.metrics[P95_LATENCY.name], run.records)
    if found.above is None or found.below is None or not found.value:
        return 0.0
    return (found.above + found.below) / 2 / _NORMAL_95 / found.value


def _first(cell: CellSummary) -> Run:
    return next(run for run in cell.runs if run.result.status == Status.FINISHED)
