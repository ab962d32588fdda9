"""The plot of a quality metric against throughput, one labelled point per cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from crossbench.measure.catalogue import JUDGED_QUERIES, KENDALL_TAU, PAIRS_PER_S, QUERIES
from crossbench.measure.metric import Metric
from crossbench.report.axes import numeric_axis
from crossbench.report.cells import CellSummary, rate_unit
from crossbench.report.drawing import Draw
from crossbench.report.point_coding import PointCoding, point_codings
from crossbench.report.series import series_style
from crossbench.report.style import (
    LEGEND_ROW_IN,
    MARKERS,
    figure,
    headline,
    legend_below,
    legend_rows,
    save,
)
from crossbench.wording import counted

_Found = Sequence[tuple[CellSummary, float, float]]  # throughput, then the metric


def quality_plot(
    cells: Sequence[CellSummary], axes: Sequence[str], metric: Metric, folder: Path
) -> dict[str, Draw]:
    """The plot of a quality metric against throughput, by its title.

    Empty if no cell has both. `axes` are those that vary. The metric's 95 % interval is drawn if a
    cell has one. The plot says on how many queries the values are; give it cells whose queries are
    the same (see `on_common_queries`).
    """
    found = [
        (cell, cell.throughput.value, cell.metrics[metric.name])
        for cell in cells
        if cell.throughput is not None and metric.name in cell.metrics
    ]
    if not found:
        return {}
    along = numeric_axis(axes, [cell.flat for cell, *_ in found])
    codings = point_codings(cells, axes, along)
    title = f"{metric.title} against {PAIRS_PER_S.title}"
    return {title: partial(_draw, found, codings, metric, folder)}


def _draw(
    found: _Found, codings: tuple[PointCoding, PointCoding], metric: Metric, folder: Path
) -> Path:
    full, short = codings
    for coding in (full, short):
        handles = coding.handles(cell for cell, *_ in found)
        with figure(4.3 + LEGEND_ROW_IN * legend_rows(handles)) as made:
            if handles:
                legend_below(made, handles)
            if _draw_points(made, found, metric, coding, must=coding is short):
                return save(made, folder, f"quality_{metric.key}")
    raise AssertionError("the short labels must be drawn")


def _draw_points(
    made: Figure, found: _Found, metric: Metric, coding: PointCoding, *, must: bool
) -> bool:
    """Draw all; return False if the labels do not fit, except if they `must` be drawn."""
    axes, cells = made.subplots(), [cell for cell, *_ in found]
    intervals = [metric.interval(cell.metrics) for cell in cells]
    for (cell, rate, value), interval in zip(found, intervals, strict=True):
        low, high = interval or (value, value)
        index = coding.index(cell)
        axes.errorbar(
            [rate], [value], yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            marker=MARKERS[index % len(MARKERS)], markersize=7, capsize=3, elinewidth=1,
            linestyle="none", **series_style(index),
        )  # fmt: skip
    axes.margins(0.16)
    axes.set(
        xlabel=f"{PAIRS_PER_S.title} ({rate_unit(cells)}){PAIRS_PER_S.better.rightwards}",
        ylabel=f"{metric.label}{metric.better.upwards}",
    )
    interval_text = ", with 95 % intervals" if any(intervals) else ""
    headline(
        made,
        f"{metric.title} against {PAIRS_PER_S.title} of {counted(len(found), 'cell')}",
        f"{_queries(cells, metric)}{interval_text}. {coding.about()}",
    )
    return coding.label_points(axes, found, must=must)


def _queries(cells: Sequence[CellSummary], metric: Metric) -> str:
    """On which queries the values are: the same ones, as many, or different ones."""
    counter = QUERIES if metric.name == KENDALL_TAU.name else JUDGED_QUERIES
    known = [cell.metrics[counter.name] for cell in cells if counter.name in cell.metrics]
    counts = sorted({round(count) for count in known})
    if not counts:
        return "Over the checked queries"
    if len(counts) > 1:
        return f"Not comparable: over {counts[0]} to {counts[-1]} queries, depending on the cell"
    samples = {_sample(cell) for cell in cells}
    same = len(samples) == 1 and _sample(cells[0])[0] is not None
    return f"Over the same {counts[0]} queries" if same else f"Over {counts[0]} queries each"


def _sample(cell: CellSummary) -> tuple[object, object, object]:
    """What determines the queries of a cell; the first item is None if it is not known."""
    depths = {run.result.quality.get("passages_a_query") for run in cell.runs} - {None}
    result = cell.runs[0].result
    return result.dataset.get("digest"), frozenset(depths), result.config.value("seed")
