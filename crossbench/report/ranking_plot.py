"""What speed cost in ranking: throughput against a measure of quality, one point per cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from crossbench.report.compare import Cell, pareto
from crossbench.report.drawing import Draw
from crossbench.report.style import GREY, MARKERS, PALETTE, figure, legend_below, place_labels, save
from crossbench.report.tables import shorten

_LABEL_CHARACTERS = 30
_LEGEND_CHARACTERS = 44


def quality_plot(cells: Sequence[Cell], metric: str, folder: Path) -> dict[str, Draw]:
    """`metric` (`quality/ndcg_at_10`), of which more is better, against throughput, by title.

    Without a cell that has both, there is nothing to draw. The measure's 95 % interval (`…_low`,
    `…_high`) is drawn where a cell has it. Where there are more cells than colours, only those that
    no other beats in both have one, and a name.
    """
    found = [
        (cell, cell.throughput.value, cell.metrics[metric])
        for cell in cells
        if cell.throughput is not None and metric in cell.metrics
    ]
    if not found:
        return {}
    name = metric.removeprefix("quality/")
    return {f"{name} against throughput": partial(_draw, found, metric, name, folder)}


def _draw(found: Sequence[tuple[Cell, float, float]], metric: str, name: str, folder: Path) -> Path:
    crowded = len(found) > len(PALETTE)
    front = pareto([(rate, -value) for _, rate, value in found])
    with figure(3.8) as made:
        axes = made.subplots()
        for index, (cell, rate, value) in enumerate(found):
            low = cell.metrics.get(f"{metric}_low", value)
            high = cell.metrics.get(f"{metric}_high", value)
            colour = PALETTE[0 if crowded else index]
            axes.errorbar(
                [rate], [value], yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                marker="o" if crowded else MARKERS[index], capsize=3, elinewidth=1,
                color=GREY if crowded and index not in front else colour, linestyle="none",
                label=shorten(cell.label, _LEGEND_CHARACTERS),
            )  # fmt: skip
        axes.margins(0.15)
        axes.set(
            xlabel="throughput (pairs/s), better to the right", ylabel=f"{name}, better upwards"
        )
        if crowded:
            named = [found[index] for index in front]
            texts = [[shorten(cell.label, _LABEL_CHARACTERS)] for cell, *_ in named]
            points = [(rate, value) for _, rate, value in named]
            place_labels(axes, [(*at, text) for at, text in zip(points, texts, strict=True)])
        else:
            legend_below(made, axes.get_legend_handles_labels()[0])
        return save(made, folder, f"quality_{name}")
