"""The plot of a quality metric against throughput, one point per cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.measure.metric import Better, Metric
from crossbench.report.cells import CellSummary, pareto
from crossbench.report.drawing import Draw
from crossbench.report.style import GREY, MARKERS, PALETTE, figure, legend_below, place_labels, save
from crossbench.report.tables import shorten

_LABEL_CHARACTERS = 30
_LEGEND_CHARACTERS = 44


def quality_plot(cells: Sequence[CellSummary], metric: Metric, folder: Path) -> dict[str, Draw]:
    """The plot of a quality metric against throughput, by its title.

    Empty if no cell has both. The metric's 95 % interval is drawn if a cell has one. With more
    cells than colours, only the Pareto-optimal cells have a colour and a label.
    """
    found = [
        (cell, cell.throughput.value, cell.metrics[metric.name])
        for cell in cells
        if cell.throughput is not None and metric.name in cell.metrics
    ]
    if not found:
        return {}
    title = f"{metric.key} against {PAIRS_PER_S.title}"
    return {title: partial(_draw, found, metric, folder)}


def _draw(found: Sequence[tuple[CellSummary, float, float]], metric: Metric, folder: Path) -> Path:
    crowded = len(found) > len(PALETTE)
    cost = 1 if metric.better is Better.LOWER else -1
    front = pareto([(rate, cost * value) for _, rate, value in found])
    with figure(3.8) as made:
        axes = made.subplots()
        for index, (cell, rate, value) in enumerate(found):
            low, high = metric.interval(cell.metrics) or (value, value)
            colour = PALETTE[0 if crowded else index]
            axes.errorbar(
                [rate], [value], yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                marker="o" if crowded else MARKERS[index], capsize=3, elinewidth=1,
                color=GREY if crowded and index not in front else colour, linestyle="none",
                label=shorten(cell.label, _LEGEND_CHARACTERS),
            )  # fmt: skip
        axes.margins(0.15)
        axes.set(
            xlabel=f"{PAIRS_PER_S.label}{PAIRS_PER_S.better.rightwards}",
            ylabel=f"{metric.label}{metric.better.upwards}",
        )
        if crowded:
            named = [found[index] for index in front]
            texts = [[shorten(cell.label, _LABEL_CHARACTERS)] for cell, *_ in named]
            points = [(rate, value) for _, rate, value in named]
            place_labels(axes, [(*at, text) for at, text in zip(points, texts, strict=True)])
        else:
            legend_below(made, axes.get_legend_handles_labels()[0])
        return save(made, folder, f"quality_{metric.key}")
