"""The frontier plot of a sweep: throughput against p95 latency, one labelled point per cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.advice.candidates import Candidates, select_candidates
from crossbench.report.cells import CellSummary, pareto
from crossbench.report.point_coding import PointCoding, point_codings
from crossbench.report.series import (
    CROSS_STYLE,
    Measured,
    disqualified_entry,
    draw_flags,
    error_bars,
    flag_entries,
    has_intervals,
    legend_entry,
    rate_label,
    series_style,
)
from crossbench.report.style import (
    GREY,
    LEGEND_ROW_IN,
    MARKERS,
    figure,
    headline,
    legend_below,
    legend_rows,
    logarithmic,
    save,
)
from crossbench.wording import counted

_PALE = 0.35


def frontier_plot(
    measured: Sequence[Measured], axes: Sequence[str], along: str | None, folder: Path
) -> Path:
    """Plot throughput against p95; a line joins the Pareto-optimal cells.

    Cells without a p95, and those whose throughput is the rate of their load, are not drawn. `axes`
    are those that vary, and `along` is the numeric one of them that other plots have on their x
    axis. Excluded cells (see `select_candidates`), and those whose p95 has too few requests, are
    pale and not on the frontier; those that change the ranking are crossed out. Error bars are 95 %
    intervals.
    """
    with frontier_figure(measured, axes, along) as made:
        return save(made, folder, "frontier")


@contextmanager
def frontier_figure(
    measured: Sequence[Measured], axes: Sequence[str], along: str | None
) -> Iterator[Figure]:
    """The figure of `frontier_plot`; its style applies while the context is open."""
    plot = _Plot.of(with_latency(measured))
    full, short = point_codings([cell for cell, *_ in measured], axes, along)
    for coding in (full, short):
        handles = plot.handles(coding)
        with figure(plot.height_in + LEGEND_ROW_IN * legend_rows(handles)) as made:
            if plot.draw(made, coding, handles, must=coding is short):
                yield made
                return


def with_latency(measured: Sequence[Measured]) -> list[Measured]:
    """The cells that the frontier plot shows."""
    return [item for item in measured if math.isfinite(item[2].value) and not item[0].is_paced]


@dataclass(frozen=True, slots=True)
class _Plot:
    """The cells, which of them are compared, and the indices of those on the frontier."""

    measured: Sequence[Measured]
    candidates: Candidates
    front: Sequence[int]

    @classmethod
    def of(cls, measured: Sequence[Measured]) -> _Plot:
        candidates = select_candidates([cell for cell, *_ in measured])
        fit = [i for i, (cell, *_) in enumerate(measured) if _is_ranked(cell, candidates)]
        points = [(measured[i][1].value, measured[i][2].value) for i in fit]
        return cls(measured, candidates, [fit[place] for place in pareto(points)])

    @property
    def height_in(self) -> float:
        """The height without the legend in inches."""
        return 4.3 if len(self.measured) <= 12 else 4.9

    @property
    def cells(self) -> list[CellSummary]:
        return [cell for cell, *_ in self.measured]

    def draw(
        self, made: Figure, coding: PointCoding, handles: Sequence[Line2D], *, must: bool
    ) -> bool:
        """Draw all; return False if the labels do not fit, except if they `must` be drawn."""
        axes = made.subplots()
        for item in self.measured:
            self._draw_cell(axes, item, coding.index(item[0]))
        front = [self.measured[i] for i in self.front]
        axes.plot(
            [p95.value for *_, p95 in front], [rate.value for _, rate, _ in front],
            color=GREY, linewidth=1.2, zorder=1,
        )  # fmt: skip
        axes.margins(0.16)
        axes.set(
            xlabel=f"{P95_LATENCY.label}{P95_LATENCY.better.rightwards}",
            ylabel=f"{rate_label(self.measured)}{PAIRS_PER_S.better.upwards}",
        )
        _set_scales(axes, self.measured)
        headline(made, self._title(), self._detail(coding))
        if handles:
            legend_below(made, handles)
        points = [(cell, p95.value, rate.value) for cell, rate, p95 in self.measured]
        return coding.label_points(axes, points, must=must)

    def handles(self, coding: PointCoding) -> list[Line2D]:
        """The legend entries for what the plot shows."""
        made = coding.handles(self.cells)
        if len(self.front) > 1:
            made.append(Line2D([], [], color=GREY, linewidth=1.2, label="frontier"))
        if any(cell.disqualified for cell, *_ in self.measured):
            made.append(disqualified_entry())
        pale = [cell for cell, *_ in self.measured if self._is_pale(cell)]
        if pale:
            few = all(self.candidates.contains(cell) for cell in pale)
            text = "p95 of fewer than 100 requests" if few else "excluded from the comparison"
            made.append(legend_entry(f"pale: {text}", "o", color=GREY, alpha=_PALE))
        return made + flag_entries(cell for cell, *_ in self.measured)

    def _title(self) -> str:
        cells = counted(len(self.measured), "cell")
        return f"{PAIRS_PER_S.title} against {P95_LATENCY.title} of {cells}".capitalize()

    def _detail(self, coding: PointCoding) -> str:
        parts = [coding.about()]
        if has_intervals(self.measured):
            parts.append("Error bars are 95 % intervals.")
        if not self.front:
            few = any(self.candidates.contains(cell) for cell in self.cells)
            why = "Each p95 is of fewer than 100 requests" if few else "No cell can be compared"
            parts.append(f"{why}, so there is no frontier.")
        return " ".join(filter(None, parts))

    def _is_pale(self, cell: CellSummary) -> bool:
        """Whether a cell is drawn pale: others are compared, and it is not."""
        ranked = _is_ranked(cell, self.candidates)
        return bool(self.front) and not ranked and not cell.disqualified

    def _draw_cell(self, axes: Axes, item: Measured, index: int) -> None:
        cell, rate, p95 = item
        draw_flags(axes, cell, p95.value, rate.value)
        style, marker = series_style(index), MARKERS[index % len(MARKERS)]
        if cell.disqualified:
            hollow = {**style, "markerfacecolor": "white"}
            axes.plot(p95.value, rate.value, marker, markersize=11, **hollow)
            axes.plot(p95.value, rate.value, **CROSS_STYLE)
            return
        axes.errorbar(
            p95.value, rate.value, xerr=error_bars([p95]), yerr=error_bars([rate]), marker=marker,
            markersize=7, elinewidth=1, alpha=_PALE if self._is_pale(cell) else 1, **style,
        )  # fmt: skip


def _is_ranked(cell: CellSummary, candidates: Candidates) -> bool:
    return cell.ranked_p95 is not None and candidates.contains(cell)


def _set_scales(axes: Axes, measured: Sequence[Measured]) -> None:
    """Choose the scales of both axes.

    Latency is logarithmic if it spans a factor of 20. Throughput starts at zero if it spans a
    factor of two.
    """
    latencies = [p95.value for _, _, p95 in measured]
    if min(latencies) > 0 and max(latencies) > 20 * min(latencies):
        logarithmic(axes)
    elif axes.get_xlim()[0] < 0:
        axes.set_xlim(left=0)
    rates = [rate.value for _, rate, _ in measured]
    if min(rates) < 0.5 * max(rates):
        axes.set_ylim(0, max(rate.value + (rate.above or 0.0) for _, rate, _ in measured) * 1.15)
