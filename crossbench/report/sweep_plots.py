"""A sweep's plots: throughput and p95 along the axis that varies, and the frontier of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.advice.choice import choose
from crossbench.report.axes import numeric_axis
from crossbench.report.compare import Cell, Estimate, pareto, rate_unit
from crossbench.report.drawing import Draw
from crossbench.report.style import (
    GREY,
    LINES,
    MARKERS,
    PALETTE,
    figure,
    legend_below,
    legend_rows,
    logarithmic,
    place_labels,
    save,
)
from crossbench.report.tables import shorten
from crossbench.settings.flatten import value_text
from crossbench.wording import number

_LEGEND_CHARACTERS = 44
_BAR_CHARACTERS = 38
_LEGEND_ROW_IN = 0.19
_GAP = Estimate(math.nan)
_PALE = 0.35
_FEW = 12  # so many cells or fewer are all named beside their point
_RATE = PAIRS_PER_S.title.capitalize()
_BOTH = f"{_RATE} and {P95_LATENCY.title}"
_DISQUALIFIED = "changes the ranking: disqualified"
_CROSS: dict[str, Any] = {
    "color": "black", "marker": "x", "markersize": 6, "markeredgewidth": 1.4, "zorder": 4,
}  # fmt: skip

Measured = tuple[Cell, Estimate, Estimate]


def sweep_plots(cells: Sequence[Cell], axes: Sequence[str], folder: Path) -> dict[str, Draw]:
    """What can be drawn of the measured cells into `folder`, by title."""
    measured = [
        (cell, cell.throughput, cell.p95)
        for cell in cells
        if cell.throughput is not None and cell.p95 is not None
    ]
    if not measured:
        return {}
    along = numeric_axis(axes, [cell.flat for cell, *_ in measured])
    rest = [axis for axis in axes if axis != along]
    keys = dict.fromkeys(_series_name(cell, rest) for cell, *_ in measured)
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
        plots[title] = partial(_frontier, measured, along, rest, names, folder)
    return plots


def _by_axis(
    measured: Sequence[Measured],
    absent: Sequence[Cell],
    along: str,
    rest: Sequence[str],
    names: dict[str, str],
    folder: Path,
) -> Path:
    """Two panels, one line per combination of the other axes, intervals as error bars.

    A line has a gap where one of its cells is `absent`, for nobody knows how it would go there. A
    cell that changes the ranking is crossed out.
    """
    crossed = [item for item in measured if item[0].disqualified]
    places = [float(cell.flat[along]) for cell, *_ in measured]
    gaps = [
        cell
        for cell in absent
        if numeric_axis([along], [cell.flat])
        and min(places) < float(cell.flat[along]) < max(places)
    ]
    values = sorted({*places, *(float(cell.flat[along]) for cell in gaps)})
    texts = [*names.values(), *([_DISQUALIFIED] if crossed else [])]
    with figure(3.3 + _LEGEND_ROW_IN * legend_rows(texts)) as made:
        panels = made.subplots(1, 2)
        for index, (key, name) in enumerate(names.items()):
            members = [item for item in measured if _series_name(item[0], rest) == key]
            members += [(cell, _GAP, _GAP) for cell in gaps if _series_name(cell, rest) == key]
            members.sort(key=lambda item: float(item[0].flat[along]))
            at = [float(cell.flat[along]) for cell, *_ in members]
            _errorbar(panels[0], at, [item[1] for item in members], name, index)
            _errorbar(panels[1], at, [item[2] for item in members], name, index)
        panels[0].set(ylabel=_rate_label(measured))
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
        for cell, *estimates in crossed:
            for panel, estimate in zip(panels, estimates, strict=True):
                panel.plot(float(cell.flat[along]), estimate.value, **_CROSS)
        handles = [*panels[0].get_legend_handles_labels()[0], *([_crossed()] if crossed else [])]
        if handles:
            legend_below(made, handles)
        return save(made, folder, f"by_{along.replace('.', '_')}")


def _bars(measured: Sequence[Measured], folder: Path) -> Path:
    """Where no number varies: one bar per cell, in the sweep's order.

    That of a cell that changes the ranking is crossed out.
    """
    crossed = [row for row, (cell, *_) in enumerate(measured) if cell.disqualified]
    labels = _unique([shorten(cell.label, _BAR_CHARACTERS) for cell, *_ in measured])
    rows = np.arange(len(measured))
    with figure(1.1 + 0.27 * len(measured) + _LEGEND_ROW_IN * bool(crossed)) as made:
        panels = made.subplots(1, 2, sharey=True)
        titles = (_rate_label(measured), P95_LATENCY.label)
        for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
            estimates = [(item[1], item[2])[column] for item in measured]
            ends = [estimate.value + (estimate.above or 0.0) for estimate in estimates]
            panel.barh(rows, [e.value for e in estimates], height=0.6, color=PALETTE[column],
                       xerr=_reaches(estimates), error_kw={"elinewidth": 1})  # fmt: skip
            for row, estimate, end in zip(rows, estimates, ends, strict=True):
                panel.annotate(number(estimate.value), (end, row), (4, 0), va="center",
                               textcoords="offset points", fontsize=8.5)  # fmt: skip
            for place in crossed:
                panel.plot(estimates[place].value / 2, place, **_CROSS)
            panel.set(xlabel=title, xlim=(0, max(ends) * 1.28))
            panel.locator_params(axis="x", nbins=4, prune="upper")
            panel.grid(visible=False, axis="y")
        panels[0].set_yticks(rows, labels)
        panels[0].set_ylim(len(measured) - 0.5, -0.5)
        if crossed:
            legend_below(made, [_crossed()])
        return save(made, folder, "by_cell")


def _frontier(
    measured: Sequence[Measured],
    along: str | None,
    rest: Sequence[str],
    names: dict[str, str],
    folder: Path,
) -> Path:
    """Every cell as p95 against throughput; those that no other beats in both are joined.

    A cell that is not in the running beats nobody and is pale; one that changes the ranking is
    crossed out. Bars are 95 % intervals.
    """
    choice = choose([cell for cell, *_ in measured])
    fit = [index for index, (cell, *_) in enumerate(measured) if choice.has(cell)]
    front = [
        fit[place] for place in pareto([(measured[i][1].value, measured[i][2].value) for i in fit])
    ]
    values = sorted({float(cell.flat[along]) for cell, *_ in measured}) if along else []
    by_value = 1 < len(values) <= len(MARKERS)
    handles: list[Line2D] = []
    order = list(names)
    for index, name in enumerate(names.values()):
        marker = "o" if by_value else MARKERS[index % len(MARKERS)]
        if name or not by_value:
            handles.append(_handle(name or "all cells", marker, **_fill(index)))
    if by_value:
        handles += [
            _handle(f"{along}={value:g}", MARKERS[k], color=GREY, markerfacecolor=GREY)
            for k, value in enumerate(values)
        ]
    if len(front) > 1:
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, label="frontier"))
    if any(cell.disqualified for cell, *_ in measured):
        handles.append(_crossed())
    if any(not choice.has(cell) and not cell.disqualified for cell, *_ in measured):
        handles.append(_handle("pale: not in the running", "o", color=GREY, alpha=_PALE))
    texts = [str(handle.get_label()) for handle in handles]
    with figure(4.0 + _LEGEND_ROW_IN * legend_rows(texts)) as made:
        axes = made.subplots()
        axes.plot(
            [measured[i][2].value for i in front], [measured[i][1].value for i in front],
            color=GREY, linewidth=1.2, zorder=1,
        )  # fmt: skip
        for cell, rate, p95 in measured:
            index = order.index(_series_name(cell, rest))
            marker = MARKERS[index % len(MARKERS)]
            if by_value and along:
                marker = MARKERS[values.index(float(cell.flat[along]))]
            if cell.disqualified:
                style = {**_fill(index), "markerfacecolor": "white"}
                axes.plot(p95.value, rate.value, marker, markersize=11, **style)
                axes.plot(p95.value, rate.value, **_CROSS)
                continue
            axes.errorbar(
                p95.value, rate.value, xerr=_reaches([p95]), yerr=_reaches([rate]), marker=marker,
                markersize=7, elinewidth=1, alpha=1 if choice.has(cell) else _PALE, **_fill(index),
            )  # fmt: skip
        axes.margins(0.16)
        axes.set(
            xlabel=f"{P95_LATENCY.label}{P95_LATENCY.better.rightwards}",
            ylabel=f"{_rate_label(measured)}{PAIRS_PER_S.better.upwards}",
        )
        _room(axes, measured)
        legend_below(made, handles)
        unfit = [index for index in range(len(measured)) if index not in fit]
        named = dict.fromkeys((*front, *unfit, *(fit if len(measured) <= _FEW else ())))
        place_labels(
            axes,
            [
                (p95.value, rate.value, _texts(cell, along))
                for cell, rate, p95 in (measured[i] for i in named)
            ],
        )
        return save(made, folder, "frontier")


def _rate_unit(measured: Sequence[Measured]) -> str:
    return rate_unit([cell for cell, *_ in measured])


def _rate_label(measured: Sequence[Measured]) -> str:
    return f"{PAIRS_PER_S.title} ({_rate_unit(measured)})"


def _unit(measured: Sequence[Measured]) -> str:
    return _rate_unit(measured).removesuffix("/s")


def _room(axes: Axes, measured: Sequence[Measured]) -> None:
    """A logarithmic latency axis where cells differ by orders; zero stays in view of throughput."""
    latencies = [p95.value for _, _, p95 in measured]
    if min(latencies) > 0 and max(latencies) > 20 * min(latencies):
        logarithmic(axes)
    elif axes.get_xlim()[0] < 0:
        axes.set_xlim(left=0)
    rates = [rate.value for _, rate, _ in measured]
    if min(rates) < 0.5 * max(rates):
        axes.set_ylim(0, max(rates) * 1.18)


def _texts(cell: Cell, along: str | None) -> list[str]:
    """What to write at a point; where that does not fit, the colour tells the rest."""
    return [shorten(cell.label, 30), *([value_text(along, cell.flat)] if along else [])]


def _series_name(cell: Cell, rest: Sequence[str]) -> str:
    return " ".join(value_text(axis, cell.flat) for axis in rest)


def _unique(texts: Sequence[str]) -> list[str]:
    """Names that shortening made equal are told apart by a number."""
    return [
        f"{text} ({texts[: index + 1].count(text)})" if texts.count(text) > 1 else text
        for index, text in enumerate(texts)
    ]


def _errorbar(
    axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], name: str, index: int
) -> None:
    axes.errorbar(
        places, [estimate.value for estimate in estimates], yerr=_reaches(estimates), capsize=3,
        marker=MARKERS[index % len(MARKERS)], markersize=5, elinewidth=1,
        linestyle=LINES[index // len(PALETTE) % len(LINES)], label=name or None, **_fill(index),
    )  # fmt: skip


def _reaches(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Error bars as matplotlib wants them; an unknown interval has none."""
    return [[e.below or 0.0 for e in estimates], [e.above or 0.0 for e in estimates]]


def _fill(index: int) -> dict[str, Any]:
    """Colour of a series; beyond the palette the same colours again, with hollow markers."""
    colour = PALETTE[index % len(PALETTE)]
    hollow = index // len(PALETTE) % 2 == 1
    return {"color": colour, "markerfacecolor": "white" if hollow else colour}


def _handle(name: str, marker: str, **style: Any) -> Line2D:
    return Line2D([], [], marker=marker, linestyle="none", markersize=6, label=name, **style)


def _crossed() -> Line2D:
    return Line2D([], [], linestyle="none", label=_DISQUALIFIED, **_CROSS)


def _thin_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Where many values crowd the axis, write only every other (third, …) one."""
    step = -(-len(values) // 8)
    kept = list(values[::step])
    axes.set_xticks(kept, [f"{value:g}" for value in kept])
