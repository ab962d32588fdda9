"""The plot of throughput and p95 along one axis of a sweep, one line for each series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from crossbench.load.labels import RATE_KEY
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, REQUESTS_PER_S
from crossbench.report.axes import axis_meaning, axis_title, numeric_axis
from crossbench.report.cells import CellSummary, Estimate
from crossbench.report.series import (
    CROSS_STYLE,
    UNKNOWN,
    Measured,
    disqualified_entry,
    draw_flags,
    error_bars,
    flag_entries,
    has_intervals,
    rate_label,
    series_name,
    series_names,
    series_style,
    unit_of_rate,
)
from crossbench.report.style import (
    GREY,
    LEGEND_ROW_IN,
    LINES,
    MARKERS,
    PALETTE,
    figure,
    headline,
    legend_below,
    legend_rows,
    save,
    text_sizes,
)
from crossbench.wording import counted, join_words

_AXIS_PT = 180.0  # between the first and the last value: the least length of the axis, in points
_TICK_GAP = 5.0  # between the texts of two ticks, in points
_TICK_SCALE = 1.12  # the size of their font as a share of that of labels
_BOUND_COLOUR = "#B00020"


@dataclass(frozen=True, slots=True)
class Lines:
    """The axis of the plot, and the other axes: there is a line for each combination of them."""

    along: str
    rest: Sequence[str]


def by_axis(
    measured: Sequence[Measured],
    absent: Sequence[CellSummary],
    lines: Lines,
    folder: Path,
    bound_ms: float | None,
) -> Path:
    """Plot throughput and p95 along an axis, one line per combination of the other axes.

    Along a rate, throughput is in requests/s, beside the line on which all requests are answered.
    Error bars are 95 % intervals. A line has a gap at cells without measurements (`absent`). Cells
    that change the ranking are crossed out, flagged ones have the outline of their flag.
    """
    along, offered = lines.along, lines.along == RATE_KEY
    if offered:
        measured = [(cell, _in_requests(cell, rate), p95) for cell, rate, p95 in measured]
    places = [float(cell.flat[along]) for cell, *_ in measured]
    gaps = [
        cell
        for cell in absent
        if numeric_axis([along], [cell.flat])
        and min(places) < float(cell.flat[along]) < max(places)
    ]
    values = sorted({*places, *(float(cell.flat[along]) for cell in gaps)})
    names = series_names([cell for cell, *_ in measured], lines.rest)
    styles = {key: _line_style(index) for index, key in enumerate(names)}
    handles = [Line2D([], [], label=name, **styles[key]) for key, name in names.items() if name]
    handles += _entries(measured, offered=offered, bound_ms=bound_ms)
    with figure(3.7 + LEGEND_ROW_IN * legend_rows(handles)) as made:
        panels = made.subplots(1, 2)
        for key, style in styles.items():
            members = [item for item in measured if series_name(item[0], lines.rest) == key]
            members += [
                (cell, UNKNOWN, UNKNOWN) for cell in gaps if series_name(cell, lines.rest) == key
            ]
            members.sort(key=lambda item: float(item[0].flat[along]))
            at = [float(cell.flat[along]) for cell, *_ in members]
            _errorbar(panels[0], at, [item[1] for item in members], style)
            _errorbar(panels[1], at, [item[2] for item in members], style)
        panels[0].set(ylabel="requests/s answered" if offered else rate_label(measured))
        panels[1].set(ylabel=P95_LATENCY.label)
        for panel in panels:
            set_ticks(panel, values)
            panel.set(xlabel=axis_title(along, unit_of_rate(measured).removesuffix("/s")))
        if offered:
            line = np.linspace(values[0], values[-1], 200)  # curved on a logarithmic axis
            panels[0].plot(line, line, color=GREY, linewidth=1, linestyle=":", zorder=1)
        if bound_ms is not None:
            panels[1].axhline(bound_ms, color=_BOUND_COLOUR, linewidth=1, linestyle="--")
        panels[1].set_xlim(panels[0].get_xlim())  # also where p95 is not shown
        for panel in panels:
            panel.set_ylim(0, panel.get_ylim()[1] * 1.05)  # so that no marker is cut off
        for cell, *estimates in measured:
            for panel, estimate in zip(panels, estimates, strict=True):
                draw_flags(panel, cell, float(cell.flat[along]), estimate.value)
                if cell.disqualified and math.isfinite(estimate.value):
                    panel.plot(float(cell.flat[along]), estimate.value, **CROSS_STYLE)
        headline(made, _title(measured, along), _detail(measured, lines))
        if handles:
            legend_below(made, handles)
        return save(made, folder, f"by_{along.replace('.', '_')}")


def _title(measured: Sequence[Measured], along: str) -> str:
    by = axis_meaning(along) if along == RATE_KEY else along
    cells = counted(len(measured), "cell")
    return f"{PAIRS_PER_S.title} and {P95_LATENCY.title} by {by}, {cells}".capitalize()


def _detail(measured: Sequence[Measured], lines: Lines) -> str:
    parts = [f"One line for each {join_words(lines.rest)}."] if lines.rest else []
    parts += ["Error bars are 95 % intervals."] if has_intervals(measured) else []
    return " ".join(parts)


def _in_requests(cell: CellSummary, rate: Estimate) -> Estimate:
    """The throughput of a cell in requests/s, with its relative interval."""
    requests = cell.metrics.get(REQUESTS_PER_S.name)
    if requests is None or not rate.value:
        return UNKNOWN
    scale = requests / rate.value
    return Estimate(
        requests,
        None if rate.below is None else rate.below * scale,
        None if rate.above is None else rate.above * scale,
    )


def _entries(
    measured: Sequence[Measured], *, offered: bool, bound_ms: float | None
) -> list[Line2D]:
    """The legend entries besides those of the series."""
    made = [Line2D([], [], color=GREY, linewidth=1, linestyle=":", label="all requests answered")]
    made = made if offered else []
    if bound_ms is not None:
        made.append(
            Line2D([], [], color=_BOUND_COLOUR, linewidth=1, linestyle="--",
                   label=f"bound of p95: {bound_ms:,.4g} ms")
        )  # fmt: skip
    if any(cell.disqualified for cell, *_ in measured):
        made.append(disqualified_entry())
    return made + flag_entries(cell for cell, *_ in measured)


def set_ticks(panel: Axes, values: Sequence[float]) -> None:
    """Put ticks at the first and the last value, and at those between whose texts have room.

    The values rise. The axis is logarithmic if they span a factor of four.
    """
    made = panel.get_figure(root=True)
    assert made is not None
    places = np.array(values)
    if values[0] > 0 and values[-1] >= 4 * values[0]:
        panel.set_xscale("log", base=2)
        places = np.log2(places)
    texts = [f"{value:,g}" for value in values]
    room = (places - places[0]) / max(places[-1] - places[0], 1e-9) * _AXIS_PT
    ends = text_sizes(made, texts)[:, 0] * _TICK_SCALE / 2 + _TICK_GAP / 2
    kept, last = [0], len(values) - 1
    for index in range(1, len(values)):
        after_kept = room[index] - ends[index] > room[kept[-1]] + ends[kept[-1]]
        if after_kept and (index == last or room[index] + ends[index] < room[last] - ends[last]):
            kept.append(index)
    panel.set_xticks([values[k] for k in kept], [texts[k] for k in kept], minor=False)
    panel.set_xticks([], minor=True)
    panel.margins(x=0.1)


def _line_style(index: int) -> dict[str, Any]:
    """The style of a series' line and markers."""
    return {
        "marker": MARKERS[index % len(MARKERS)], "markersize": 5,
        "linestyle": LINES[index // len(PALETTE) % len(LINES)], **series_style(index),
    }  # fmt: skip


def _errorbar(
    axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], style: Mapping[str, Any]
) -> None:
    axes.errorbar(
        places, [estimate.value for estimate in estimates], yerr=error_bars(estimates), capsize=3,
        elinewidth=1, **style,
    )  # fmt: skip
