"""Summaries of a sweep's cells: repeats are averaged, and give each value its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import geometric_mean

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.catalogue import P95_LATENCY, throughput
from crossbench.measure.intervals import percentile_interval
from crossbench.measure.metric import Metric
from crossbench.report.axes import flatten, label, varying
from crossbench.report.cells import (
    Block,
    CellSummary,
    Estimate,
    Run,
    block_of,
    cell_throughput,
    finished_runs,
    finished_values,
)
from crossbench.report.machines import with_kinds
from crossbench.types import RequestRecord


def summarise_cells(runs: Sequence[Run]) -> list[CellSummary]:
    """Summarise the runs of each cell; cells are in the order in which they first ran."""
    runs, axes = with_kinds(runs), varying([run.result.config for run in runs])
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
        _with_estimates(cell, rate or cell.throughput, p95 or cell.p95)
        for cell, rate, p95 in zip(cells, rates, p95s, strict=True)
    ]


def _with_estimates(cell: CellSummary, rate: Estimate | None, p95: Estimate | None) -> CellSummary:
    """The cell with these values, also among its metrics, which tables show."""
    values = {cell_throughput(cell).name: rate, P95_LATENCY.name: p95}
    known = {name: estimate.value for name, estimate in values.items() if estimate is not None}
    return replace(cell, throughput=rate, p95=p95, metrics={**cell.metrics, **known})


def log_values(
    cells: Sequence[CellSummary], metric_of: Callable[[CellSummary], Metric]
) -> NDArray[np.float64]:
    """Return the logarithms of a metric, (cells, blocks), NaN where a cell has no value.

    Runs of the same study with the same `repeat`, on like machines, form a block. If a cell has
    several runs in one block, because two sweeps are read together, the block has their mean.
    """
    found: list[dict[Block, list[float]]] = []
    for cell in cells:
        by_block: dict[Block, list[float]] = {}
        for run in finished_runs(cell.runs):
            value = run.result.metrics.get(metric_of(cell).name)
            if value is not None and value > 0:
                by_block.setdefault(block_of(run), []).append(math.log(value))
        found.append(by_block)
    blocks = sorted({block for by_block in found for block in by_block})
    matrix = np.full((len(cells), len(blocks)), np.nan)
    for row, by_block in enumerate(found):
        for column, block in enumerate(blocks):
            if block in by_block:
                matrix[row, column] = np.mean(by_block[block])
    return matrix


def _mean_metrics(group: Sequence[Run]) -> dict[str, float]:
    finished = [run.result.metrics for run in finished_runs(group)]
    names = dict.fromkeys(name for metrics in finished for name in metrics)
    columns = {name: finished_values(name, group) for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def _mean(metric: str, group: Sequence[Run]) -> Estimate | None:
    """The geometric mean: the ratio of two of them is what the verdicts are about."""
    values = finished_values(metric, group)
    return Estimate(geometric_mean(values)) if values and min(values) > 0 else None


def run_p95(cell: CellSummary) -> Estimate | None:
    """The p95 of a cell that ran once, with its interval of this run, if it can be compared."""
    if cell.ranked_p95 is None:
        return cell.p95
    return p95_estimate(cell.ranked_p95.value, finished_runs(cell.runs)[0].records)


def p95_estimate(value_ms: float, records: Sequence[RequestRecord]) -> Estimate:
    """The p95 `value_ms` of these requests with its interval of this run, if they suffice."""
    found = percentile_interval([record.latency_ms for record in records if record.ok], 95)
    if found is None:
        return Estimate(value_ms)
    return Estimate(value_ms, max(0.0, value_ms - found.low), max(0.0, found.high - value_ms))


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


def _label(run: Run, axes: Sequence[str]) -> str:
    """A cell without a configuration is named after its folder."""
    return label(run.result.config, axes) if run.result.config else f"cell {run.name}"
