"""Parts shared by the plots of a sweep: measured cells, series styles and legend entries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.report.cells import CellSummary, Estimate, rate_unit
from crossbench.report.style import PALETTE
from crossbench.report.tables import shorten
from crossbench.results import Flag
from crossbench.settings.flatten import value_text

_LEGEND_CHARACTERS = 90  # what fits the width of a plot
DISQUALIFIED = "changes the ranking: disqualified"
CROSS_STYLE: dict[str, Any] = {
    "color": "black", "marker": "x", "markersize": 6, "markeredgewidth": 1.4, "zorder": 4,
}  # fmt: skip

FLAG_STYLE: dict[Flag, dict[str, Any]] = {
    flag: {
        "color": "black", "marker": marker, "markersize": 13, "markeredgewidth": 1.2,
        "markerfacecolor": "none", "zorder": 5, "clip_on": False,
    }
    for flag, marker in (
        (Flag.OVER_SATURATED, "^"), (Flag.CLIENT_BOUND, "s"), (Flag.DISTURBED, "o"),
    )
}  # fmt: skip

UNKNOWN = Estimate(math.nan)
Measured = tuple[CellSummary, Estimate, Estimate]  # throughput, then p95; UNKNOWN is not drawn


def series_name(cell: CellSummary, rest: Sequence[str]) -> str:
    """The name of the cell's series: its values on the axes `rest`."""
    return " ".join(value_text(axis, cell.flat) for axis in rest)


def series_names(cells: Iterable[CellSummary], rest: Sequence[str]) -> dict[str, str]:
    """The names of all series in legends, by `series_name`; each is unique and fits one line."""
    keys = dict.fromkeys(series_name(cell, rest) for cell in cells)
    return dict(zip(keys, _unique([shorten(key, _LEGEND_CHARACTERS) for key in keys]), strict=True))


def unit_of_rate(measured: Sequence[Measured]) -> str:
    """The unit of these cells' throughput, such as `pairs/s`."""
    return rate_unit([cell for cell, *_ in measured])


def rate_label(measured: Sequence[Measured]) -> str:
    """The label of a throughput axis."""
    return f"{PAIRS_PER_S.title} ({unit_of_rate(measured)})"


def error_bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Error bars in matplotlib's form: lower and upper lengths; 0 for an unknown interval."""
    return [[e.below or 0.0 for e in estimates], [e.above or 0.0 for e in estimates]]


def has_intervals(measured: Iterable[Measured]) -> bool:
    """Whether any of the values has an interval, so that a plot has error bars."""
    return any(item.half_width is not None for _, *pair in measured for item in pair)


def series_style(index: int) -> dict[str, Any]:
    """Colour and marker fill of a series; after the last colour they repeat with hollow markers."""
    colour = PALETTE[index % len(PALETTE)]
    hollow = index // len(PALETTE) % 2 == 1
    return {"color": colour, "markerfacecolor": "white" if hollow else colour}


def legend_entry(name: str, marker: str, **style: Any) -> Line2D:
    """A legend entry that shows a marker."""
    return Line2D([], [], marker=marker, linestyle="none", markersize=6, label=name, **style)


def disqualified_entry() -> Line2D:
    """The legend entry of cells that change the ranking."""
    return Line2D([], [], linestyle="none", label=DISQUALIFIED, **CROSS_STYLE)


def flag_entries(cells: Iterable[CellSummary]) -> list[Line2D]:
    """The legend entries of the flags that these cells have."""
    found = {flag for cell in cells for flag in cell.flags}
    return [
        Line2D([], [], linestyle="none", label=str(flag), **{**style, "markersize": 8})
        for flag, style in FLAG_STYLE.items()
        if flag in found
    ]


def draw_flags(axes: Axes, cell: CellSummary, x: float, y: float) -> None:
    """Draw the outline of each of the cell's flags around its point."""
    for flag, style in FLAG_STYLE.items():
        if flag in cell.flags and math.isfinite(x) and math.isfinite(y):
            axes.plot(x, y, **style)


def _unique(texts: Sequence[str]) -> list[str]:
    """Number the names that shortening has made equal."""
    return [
        f"{text} ({texts[: index + 1].count(text)})" if texts.count(text) > 1 else text
        for index, text in enumerate(texts)
    ]
