"""A sweep's plots: throughput and p95 along one axis or per cell, and the frontier of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from crossbench.load.labels import RATE_KEY
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.axes import axis_meaning, numeric_axis
from crossbench.report.axis_plot import Lines, by_axis
from crossbench.report.cell_bars import cell_bars
from crossbench.report.cells import CellSummary
from crossbench.report.drawing import Draw
from crossbench.report.frontier import frontier_plot, with_latency
from crossbench.report.series import UNKNOWN, Measured, series_name

_RATE = PAIRS_PER_S.title.capitalize()
_BOTH = f"{_RATE} and {P95_LATENCY.title}"


def sweep_plots(
    cells: Sequence[CellSummary], axes: Sequence[str], folder: Path, bound_ms: float | None = None
) -> dict[str, Draw]:
    """Plots of the measured cells by title; drawing them writes into `folder`.

    The p95 of an over-saturated cell is not drawn, since it depends on the length of the run.
    `bound_ms` is drawn beside p95. Ramps are left out, as they have several loads, and the frontier
    has no open loops.
    """
    measured: list[Measured] = [
        (cell, cell.throughput, UNKNOWN if cell.over_saturated else cell.p95 or UNKNOWN)
        for cell in cells
        if cell.throughput is not None and not cell.is_ramp
    ]
    if not measured:
        return {}
    along = numeric_axis(axes, [cell.flat for cell, *_ in measured])
    plots: dict[str, Draw] = {}
    if along is not None and _has_lines(measured, others := _others(axes, along)):
        what = axis_meaning(along) if along == RATE_KEY else along
        absent = [cell for cell in cells if cell.throughput is None]
        lines = Lines(along, others)
        plots[f"{_BOTH} by {what}"] = partial(by_axis, measured, absent, lines, folder, bound_ms)
    else:
        plots[_BOTH] = partial(cell_bars, measured, folder)
    # The throughput of an open loop is its rate, which says nothing about the server
    if len(with_latency(measured)) > 1:
        title = f"{_RATE} against {P95_LATENCY.title}"
        plots[title] = partial(frontier_plot, measured, axes, along, folder)
    return plots


def _has_lines(measured: Sequence[Measured], others: Sequence[str]) -> bool:
    """Whether any of the lines along an axis, one for each value of the others, has two points."""
    return len(measured) > len({series_name(cell, others) for cell, *_ in measured})


def _others(axes: Sequence[str], along: str) -> list[str]:
    return [axis for axis in axes if axis != along]
