"""Summaries of a sweep's cells: repeats are averaged, and give each value its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import geometric_mean

import numpy as np
from numpy.typing import NDArray

from crossbench.load.labels import is_paced, is_ramp, load_labels
from crossbench.measure.catalogue import P95_LATENCY, throughput
from crossbench.measure.intervals import percentile_interval
from crossbench.measure.metric import Metric
from crossbench.measure.ranking import Verdict
from crossbench.measure.statistics import percentile_supported
from crossbench.report.axes import flatten, label, varying
from crossbench.report.columns import requests_ok
from crossbench.results import Flag, RunResult, Status
from crossbench.types import RequestRecord

_WORST_FIRST = (
    Verdict.CHANGES, Verdict.UNSURE, Verdict.UNCHECKED, Verdict.SAME_ORDER, Verdict.KEEPS,
    Verdict.REFERENCE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a cell, finished or not: the folder's name, the result, the request records."""

    name: str
    result: RunResult
    records: Sequence[RequestRecord] = ()

    @property
    def reason(self) -> str:
        """The first line of why it did not finish."""
        return (self.result.error or "no reason was recorded").strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the distances to both ends of its 95 % interval; both None if it is unknown.

    The interval of a cell's value is of its configuration: another run's value may differ by it.
    """

    value: float
    below: float | None = None
    above: float | None = None

    @property
    def half_width(self) -> float | None:
        """The larger of the two distances; None if unknown."""
        return None if self.below is None or self.above is None else max(self.below, self.above)


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One point of the sweep: its runs (repeats) and their mean metrics.

    `throughput` is in `unit` (pairs or texts) per second, `p95` in ms. Both are geometric means
    over the finished runs, as if all cells had run in all blocks, with an interval if the sweep has
    enough repeats. They are None if no run finished or a value is 0. Use `ranked_p95` to compare
    cells. `flat` maps the dotted keys of the configuration to their values as text.
    """

    name: str
    label: str
    runs: tuple[Run, ...]
    unit: str
    flat: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    throughput: Estimate | None = None
    p95: Estimate | None = None

    @property
    def finished(self) -> int:
        return sum(run.result.status == Status.FINISHED for run in self.runs)

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.runs if run.result.status != Status.FINISHED]

    @property
    def blocks(self) -> int:
        """The number of blocks in which a run finished; runs with the same `repeat` are one."""
        return len({_block(run) for run in _finished(self.runs)})

    @property
    def repeated(self) -> bool:
        """Whether runs finished in several blocks."""
        return self.blocks > 1

    def values(self, metric: str) -> list[float]:
        """Return the metric's value in each finished run that has it."""
        return _finished_values(metric, self.runs)

    @property
    def load_labels(self) -> tuple[str, ...]:
        """The keys of `flat` that describe the cell's load."""
        return load_labels(self.runs[0].result.config)

    @property
    def computes_scores(self) -> bool:
        """Whether a model computed the scores; if not, only the harness was measured."""
        return all(run.result.computes_scores for run in self.runs)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the quality check, the worst one if repeats differ. None: not checked.

        Repeats that relied on the check of another one do not count.
        """
        found = {
            run.result.quality.get("verdict")
            for run in self.runs
            if run.result.status == Status.FINISHED and "checked_in" not in run.result.quality
        }
        return next((verdict for verdict in _WORST_FIRST if verdict in found), None)

    @property
    def disqualified(self) -> bool:
        """Whether the cell changes the ranking: then it cannot be the best, however fast it is."""
        return self.verdict is Verdict.CHANGES

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the runs, each once."""
        return tuple(dict.fromkeys(flag for run in self.runs for flag in run.result.flags))

    @property
    def over_saturated(self) -> bool:
        """Whether requests were due faster than the server could answer them."""
        return Flag.OVER_SATURATED in self.flags

    @property
    def is_paced(self) -> bool:
        """Whether the load has a rate of its own, so that throughput shows the load."""
        return is_paced(self.runs[0].result.config)

    @property
    def is_ramp(self) -> bool:
        """Whether the cell has several loads, one after the other."""
        return is_ramp(self.runs[0].result.config)

    @property
    def p95_supported(self) -> bool:
        """Whether enough requests lie beyond the p95 to compare it: 100 requests in each run."""
        return _p95_supported(self.runs)

    @property
    def ranked_p95(self) -> Estimate | None:
        """The p95 if it can be compared with that of other cells.

        None if too few requests lie beyond it, and for an over-saturated cell, whose latencies grow
        for as long as it runs.
        """
        return self.p95 if self.p95_supported and not self.over_saturated else None

    @property
    def status(self) -> str:
        if not self.failures:
            return ", ".join([Status.FINISHED, *self.flags])
        if not self.finished:
            return str(self.failures[0].result.status)
        return ", ".join([f"{self.finished} of {len(self.runs)} finished", *self.flags])


def summarise_cells(runs: Sequence[Run]) -> list[CellSummary]:
    """Summarise the runs of each cell; cells are in the order in which they first ran."""
    axes = varying([run.result.config for run in runs])
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.result.cell_id or f"folder {run.name}", []).append(run)
    cells = [
        CellSummary(
            name=", ".join(run.name for run in group),
            label=_label(group[0], axes),
            runs=tuple(group),
            unit=group[0].result.task.unit,
            flat=flatten(group[0].result.config),
            metrics=_mean_metrics(group),
            throughput=_mean(throughput(group[0].result.task.unit).name, group),
            p95=_mean(P95_LATENCY.name, group),
        )
        for group in groups.values()
    ]
    if not any(cell.repeated for cell in cells):
        return cells
    rates = _estimates(cells, lambda cell: cell.throughput, cell_throughput)
    p95s = _estimates(cells, lambda cell: cell.ranked_p95, lambda cell: P95_LATENCY)
    return [
        replace(cell, throughput=rate or cell.throughput, p95=p95 or cell.p95)
        for cell, rate, p95 in zip(cells, rates, p95s, strict=True)
    ]


def cell_throughput(cell: CellSummary) -> Metric:
    """The metric of a cell's throughput: pairs per second, or texts per second if it embeds."""
    return throughput(cell.unit)


def log_values(
    cells: Sequence[CellSummary], metric_of: Callable[[CellSummary], Metric]
) -> NDArray[np.float64]:
    """Return the logarithms of a metric, (cells, blocks), NaN where a cell has no value.

    Runs of the same study with the same `repeat` form a block. If a cell has several runs in one
    block, because two sweeps are read together, the block has their mean.
    """
    found: list[dict[tuple[str, int], list[float]]] = []
    for cell in cells:
        by_block: dict[tuple[str, int], list[float]] = {}
        for run in _finished(cell.runs):
            value = run.result.metrics.get(metric_of(cell).name)
            if value is not None and value > 0:
                by_block.setdefault(_block(run), []).append(math.log(value))
        found.append(by_block)
    blocks = sorted({block for by_block in found for block in by_block})
    matrix = np.full((len(cells), len(blocks)), np.nan)
    for row, by_block in enumerate(found):
        for column, block in enumerate(blocks):
            if block in by_block:
                matrix[row, column] = np.mean(by_block[block])
    return matrix


def compared_unit(cells: Sequence[CellSummary]) -> str:
    """The unit of the cells that are compared: that of the first one that was measured.

    Pairs per second and texts per second are of different tasks.
    """
    units = [cell.unit for cell in cells if cell.throughput is not None]
    return units[0] if units else ""


def _block(run: Run) -> tuple[str, int]:
    """The block of a run: the repeat of its study."""
    config = run.result.config
    return str(config.value("study") or ""), int(config.value("repeat", 0))


def _estimates(
    cells: Sequence[CellSummary],
    get: Callable[[CellSummary], Estimate | None],
    metric_of: Callable[[CellSummary], Metric],
) -> list[Estimate | None]:
    """The values as if all cells had run in all blocks, with the intervals that repeats give."""
    from crossbench.measure.contrasts import compare_cells

    with_value = [cell for cell in cells if get(cell) is not None]
    found: dict[str, Estimate] = {}
    for unit in dict.fromkeys(cell.unit for cell in with_value):
        of_unit = [cell for cell in with_value if cell.unit == unit]
        contrasts = compare_cells(log_values(of_unit, metric_of))
        for index, cell in enumerate(of_unit):
            ends, value = contrasts.interval(index), math.exp(contrasts.fit.means[index])
            found[cell.name] = (
                Estimate(value)
                if ends is None
                else Estimate(value, value - ends.low, ends.high - value)
            )
    return [found.get(cell.name) for cell in cells]


def rate_unit(cells: Sequence[CellSummary]) -> str:
    """The unit of the cells' throughput: `pairs/s`, `texts/s`, or `pairs or texts/s`."""
    units = dict.fromkeys(cell.unit for cell in cells)
    return f"{' or '.join(units) or 'pairs'}/s"


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto-optimal (throughput, latency) points, by rising latency."""
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if points[index][0] > best:
            best = points[index][0]
            front.append(index)
    return front


def _label(run: Run, axes: Sequence[str]) -> str:
    """A cell without a configuration is named after its folder."""
    return label(run.result.config, axes) if run.result.config else f"cell {run.name}"


def _finished(group: Sequence[Run]) -> list[Run]:
    return [run for run in group if run.result.status == Status.FINISHED]


def _p95_supported(group: Sequence[Run]) -> bool:
    counts = [requests_ok(run.result.metrics) for run in _finished(group)]
    return bool(counts) and percentile_supported(95, min(counts))


def _finished_values(metric: str, group: Sequence[Run]) -> list[float]:
    found = [run.result.metrics.get(metric) for run in _finished(group)]
    return [value for value in found if value is not None]


def _mean_metrics(group: Sequence[Run]) -> dict[str, float]:
    finished = [run.result.metrics for run in _finished(group)]
    names = dict.fromkeys(name for metrics in finished for name in metrics)
    columns = {name: _finished_values(name, group) for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def _mean(metric: str, group: Sequence[Run]) -> Estimate | None:
    """The geometric mean: the ratio of two of them is what the verdicts are about."""
    values = _finished_values(metric, group)
    return Estimate(geometric_mean(values)) if values and min(values) > 0 else None


def run_p95(cell: CellSummary) -> Estimate | None:
    """The p95 of a cell that ran once, with its interval of this run, if it can be compared."""
    if cell.ranked_p95 is None:
        return cell.p95
    return p95_estimate(cell.ranked_p95.value, _finished(cell.runs)[0].records)


def p95_estimate(value_ms: float, records: Sequence[RequestRecord]) -> Estimate:
    """The p95 `value_ms` of these requests with its interval of this run, if they suffice."""
    found = percentile_interval([record.latency_ms for record in records if record.ok], 95)
    if found is None:
        return Estimate(value_ms)
    return Estimate(value_ms, max(0.0, value_ms - found.low), max(0.0, found.high - value_ms))
