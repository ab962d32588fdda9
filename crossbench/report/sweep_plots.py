"""A sweep's plots: throughput and p95 along one axis or per cell, and the frontier of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from crossbench.load.labels import RATE_KEY
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.axes import axis_meaning, numeric_axis
from crossbench.report.axis_plot import Lines, by_axis
from crossbench.report.cells import CellSummary
from crossbench.report.drawing import Draw
from crossbench.report.frontier import frontier_plot
from crossbench.report.series import (
    CROSS_STYLE,
    LEGEND_ROW_IN,
    UNKNOWN,
    Measured,
    disqualified_entry,
    draw_flags,
    error_bars,
    flag_entries,
    rate_label,
    series_name,
)
from crossbench.report.style import PALETTE, figure, legend_below, save
from crossbench.report.tables import shorten
from crossbench.wording import number

_LEGEND_CHARACTERS = 44
_BAR_CHARACTERS = 38

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
    rest = [axis for axis in axes if axis != along]
    keys = dict.fromkeys(series_name(cell, rest) for cell, *_ in measured)
    names = dict(
        zip(keys, _unique([shorten(key, _LEGEND_CHARACTERS) for key in keys]), strict=True)
    )
    plots: dict[str, Draw] = {}
    if along is not None and len(measured) > len(names):
        what = axis_meaning(along) if along == RATE_KEY else along
        absent = [cell for cell in cells if cell.throughput is None]
        lines = Lines(along, rest, names)
        plots[f"{_BOTH} by {what}"] = partial(by_axis, measured, absent, lines, folder, bound_ms)
    else:
        plots[_BOTH] = partial(_bars, measured, folder)
    # The throughput of an open loop is its rate, which says nothing about the server
    placed = [item for item in measured if math.isfinite(item[2].value) and not item[0].is_paced]
    if len(placed) > 1:
        kept = {series_name(cell, rest) for cell, *_ in placed}
        shown = {key: name for key, name in names.items() if key in kept}
        title = f"{_RATE} against {P95_LATENCY.title}"
        plots[title] = partial(frontier_plot, placed, along, rest, shown, folder)
    return plots


def _bars(measured: Sequence[Measured], folder: Path) -> Path:
    """Plot one bar per cell in the sweep's order, used if no numeric axis varies.

    Cells that change the ranking are crossed out, and flagged ones have their flag's outline.
    """
    disqualified = [row for row, (cell, *_) in enumerate(measured) if cell.disqualified]
    labels = _unique([shorten(cell.label, _BAR_CHARACTERS) for cell, *_ in measured])
    rows = np.arange(len(measured))
    entries = [disqualified_entry()] if disqualified else []
    entries += flag_entries(cell for cell, *_ in measured)
    with figure(1.1 + 0.27 * len(measured) + LEGEND_ROW_IN * bool(entries)) as made:
        panels = made.subplots(1, 2, sharey=True)
        titles = (rate_label(measured), P95_LATENCY.label)
        for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
            estimates = [(item[1], item[2])[column] for item in measured]
            lengths = [e.value if math.isfinite(e.value) else 0.0 for e in estimates]
            ends = [length + (e.above or 0.0) for length, e in zip(lengths, estimates, strict=True)]
            panel.barh(rows, lengths, height=0.6, color=PALETTE[column],
                       xerr=error_bars(estimates), error_kw={"elinewidth": 1})  # fmt: skip
            for row, estimate, end in zip(rows, estimates, ends, strict=True):
                text = number(estimate.value) if math.isfinite(estimate.value) else "n/a"
                panel.annotate(text, (end, row), (4, 0), va="center",
                               textcoords="offset points", fontsize=8.5)  # fmt: skip
            for place in disqualified:
                panel.plot(lengths[place] / 2, place, **CROSS_STYLE)
            for place, (cell, *_) in enumerate(measured):
                if column == 0:
                    draw_flags(panel, cell, lengths[place] / 2, place)
            panel.set(xlabel=title, xlim=(0, (max(ends) or 1.0) * 1.28))
            panel.locator_params(axis="x", nbins=4, prune="upper")
            panel.grid(visible=False, axis="y")
        panels[0].set_yticks(rows, labels)
        panels[0].set_ylim(len(measured) - 0.5, -0.5)
        if entries:
            legend_below(made, entries)
        return save(made, folder, "by_cell")


def _unique(texts: Sequence[str]) -> list[str]:
    """Number the names that shortening has made equal."""
    return [
        f"{text} ({texts[: index + 1].count(text)})" if texts.count(text) > 1 else text
        for index, text in enumerate(texts)
    ]
