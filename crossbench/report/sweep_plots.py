"""A sweep's plots: throughput and p95 along one axis or per cell, and the frontier of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.axes import numeric_axis
from crossbench.report.compare import CellSummary, Estimate
from crossbench.report.drawing import Draw
from crossbench.report.frontier import frontier_plot
from crossbench.report.series import (
    CROSS_STYLE,
    DISQUALIFIED,
    LEGEND_ROW_IN,
    Measured,
    disqualified_entry,
    error_bars,
    rate_label,
    series_name,
    series_style,
    unit_of_rate,
)
from crossbench.report.style import (
    LINES,
    MARKERS,
    PALETTE,
    figure,
    legend_below,
    legend_rows,
    save,
)
from crossbench.report.tables import shorten
from crossbench.wording import number

_LEGEND_CHARACTERS = 44
_BAR_CHARACTERS = 38

_GAP = Estimate(math.nan)
_RATE = PAIRS_PER_S.title.capitalize()
_BOTH = f"{_RATE} and {P95_LATENCY.title}"


def sweep_plots(cells: Sequence[CellSummary], axes: Sequence[str], folder: Path) -> dict[str, Draw]:
    """Plots of the measured cells by title; drawing them writes into `folder`."""
    measured = [
        (cell, cell.throughput, cell.p95)
        for cell in cells
        if cell.throughput is not None and cell.p95 is not None
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
        title = f"{_BOTH} by {along}"
        absent = [cell for cell in cells if cell.throughput is None or cell.p95 is None]
        plots[title] = partial(_by_axis, measured, absent, along, rest, names, folder)
    else:
        plots[_BOTH] = partial(_bars, measured, folder)
    if len(measured) > 1:
        title = f"{_RATE} against {P95_LATENCY.title}"
        plots[title] = partial(frontier_plot, measured, along, rest, names, folder)
    return plots


def _by_axis(
    measured: Sequence[Measured],
    absent: Sequence[CellSummary],
    along: str,
    rest: Sequence[str],
    names: dict[str, str],
    folder: Path,
) -> Path:
    """Plot throughput and p95 along `along`, one line per combination of the other axes.

    Error bars are 95 % intervals. A line has a gap at cells without measurements (`absent`). Cells
    that change the ranking are crossed out.
    """
    disqualified = [item for item in measured if item[0].disqualified]
    places = [float(cell.flat[along]) for cell, *_ in measured]
    gaps = [
        cell
        for cell in absent
        if numeric_axis([along], [cell.flat])
        and min(places) < float(cell.flat[along]) < max(places)
    ]
    values = sorted({*places, *(float(cell.flat[along]) for cell in gaps)})
    texts = [*names.values(), *([DISQUALIFIED] if disqualified else [])]
    with figure(3.3 + LEGEND_ROW_IN * legend_rows(texts)) as made:
        panels = made.subplots(1, 2)
        for index, (key, name) in enumerate(names.items()):
            members = [item for item in measured if series_name(item[0], rest) == key]
            members += [(cell, _GAP, _GAP) for cell in gaps if series_name(cell, rest) == key]
            members.sort(key=lambda item: float(item[0].flat[along]))
            at = [float(cell.flat[along]) for cell, *_ in members]
            _errorbar(panels[0], at, [item[1] for item in members], name, index)
            _errorbar(panels[1], at, [item[2] for item in members], name, index)
        panels[0].set(ylabel=rate_label(measured))
        panels[1].set(ylabel=P95_LATENCY.label)
        for panel in panels:
            if values[0] > 0 and values[-1] >= 4 * values[0]:
                panel.set_xscale("log", base=2)
            panel.set_xticks(values, [f"{value:g}" for value in values], minor=False)
            panel.set_xticks([], minor=True)
            _thin_ticks(panel, values)
            panel.margins(x=0.1)
            panel.set(
                xlabel=f"{_unit(measured)} per request (batch)" if along == "batch" else along
            )
            panel.set_ylim(bottom=0)
        for cell, *estimates in disqualified:
            for panel, estimate in zip(panels, estimates, strict=True):
                panel.plot(float(cell.flat[along]), estimate.value, **CROSS_STYLE)
        handles = [
            *panels[0].get_legend_handles_labels()[0],
            *([disqualified_entry()] if disqualified else []),
        ]
        if handles:
            legend_below(made, handles)
        return save(made, folder, f"by_{along.replace('.', '_')}")


def _bars(measured: Sequence[Measured], folder: Path) -> Path:
    """Plot one bar per cell in the sweep's order, used if no numeric axis varies.

    Cells that change the ranking are crossed out.
    """
    disqualified = [row for row, (cell, *_) in enumerate(measured) if cell.disqualified]
    labels = _unique([shorten(cell.label, _BAR_CHARACTERS) for cell, *_ in measured])
    rows = np.arange(len(measured))
    with figure(1.1 + 0.27 * len(measured) + LEGEND_ROW_IN * bool(disqualified)) as made:
        panels = made.subplots(1, 2, sharey=True)
        titles = (rate_label(measured), P95_LATENCY.label)
        for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
            estimates = [(item[1], item[2])[column] for item in measured]
            ends = [estimate.value + (estimate.above or 0.0) for estimate in estimates]
            panel.barh(rows, [e.value for e in estimates], height=0.6, color=PALETTE[column],
                       xerr=error_bars(estimates), error_kw={"elinewidth": 1})  # fmt: skip
            for row, estimate, end in zip(rows, estimates, ends, strict=True):
                panel.annotate(number(estimate.value), (end, row), (4, 0), va="center",
                               textcoords="offset points", fontsize=8.5)  # fmt: skip
            for place in disqualified:
                panel.plot(estimates[place].value / 2, place, **CROSS_STYLE)
            panel.set(xlabel=title, xlim=(0, max(ends) * 1.28))
            panel.locator_params(axis="x", nbins=4, prune="upper")
            panel.grid(visible=False, axis="y")
        panels[0].set_yticks(rows, labels)
        panels[0].set_ylim(len(measured) - 0.5, -0.5)
        if disqualified:
            legend_below(made, [disqualified_entry()])
        return save(made, folder, "by_cell")


def _unit(measured: Sequence[Measured]) -> str:
    return unit_of_rate(measured).removesuffix("/s")


def _unique(texts: Sequence[str]) -> list[str]:
    """Number the names that shortening has made equal."""
    return [
        f"{text} ({texts[: index + 1].count(text)})" if texts.count(text) > 1 else text
        for index, text in enumerate(texts)
    ]


def _errorbar(
    axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], name: str, index: int
) -> None:
    axes.errorbar(
        places, [estimate.value for estimate in estimates], yerr=error_bars(estimates), capsize=3,
        marker=MARKERS[index % len(MARKERS)], markersize=5, elinewidth=1,
        linestyle=LINES[index // len(PALETTE) % len(LINES)], label=name or None,
        **series_style(index),
    )  # fmt: skip


def _thin_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Label only every second (third, …) value if there are many."""
    step = -(-len(values) // 8)
    kept = list(values[::step])
    axes.set_xticks(kept, [f"{value:g}" for value in kept])
