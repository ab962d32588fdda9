"""What speed cost in ranking: throughput against a measure of quality, one point per cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.report.compare import Cell
from crossbench.report.style import MARKERS, PALETTE, figure, legend_below, place_labels, save
from crossbench.report.tables import shorten

_LABEL_CHARACTERS = 30


def quality_plot(cells: Sequence[Cell], metric: str, folder: Path) -> dict[str, Path]:
    """Draw `metric` (`quality/ndcg_at_10`) against throughput: {title: path of the PNG}.

    Without a cell that has both, nothing is drawn. The measure's 95 % interval (`…_low`, `…_high`)
    is drawn where a cell has it.
    """
    found = [
        (cell, cell.throughput.value, cell.metrics[metric])
        for cell in cells
        if cell.throughput is not None and metric in cell.metrics
    ]
    if not found:
        return {}
    name = metric.removeprefix("quality/")
    with figure(3.8) as made:
        axes = made.subplots()
        for index, (cell, rate, value) in enumerate(found):
            low = cell.metrics.get(f"{metric}_low", value)
            high = cell.metrics.get(f"{metric}_high", value)
            axes.errorbar(
                [rate], [value], yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
                marker=MARKERS[index % len(MARKERS)], color=PALETTE[index % len(PALETTE)],
                capsize=3, elinewidth=1, linestyle="none",
                label=shorten(cell.label, _LABEL_CHARACTERS),
            )  # fmt: skip
        axes.margins(0.15)
        axes.set(xlabel="throughput (pairs/s), better to the right", ylabel=name)
        if len(found) > len(PALETTE):
            points = [
                (rate, value, [shorten(cell.label, _LABEL_CHARACTERS)])
                for cell, rate, value in found
            ]
            place_labels(axes, points)
        else:
            legend_below(made, axes.get_legend_handles_labels()[0])
        return {f"{name} against throughput": save(made, folder, f"quality_{name}")}
