"""The plot of throughput and p95 with one bar per cell, for sweeps without a numeric axis."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.cells import Estimate
from crossbench.report.series import (
    CROSS_STYLE,
    Measured,
    disqualified_entry,
    draw_flags,
    error_bars,
    flag_entries,
    has_intervals,
    rate_label,
)
from crossbench.report.style import (
    LEGEND_ROW_IN,
    PALETTE,
    figure,
    headline,
    legend_below,
    legend_rows,
    number_bars,
    save,
)
from crossbench.report.sweep_tables import estimate_text
from crossbench.wording import counted

_NAME_CHARACTERS = 45  # of a line; longer names have several lines
_LINE_IN = 0.17  # the height of a line


def cell_bars(measured: Sequence[Measured], folder: Path) -> Path:
    """Plot one bar per cell in the sweep's order, with its value at its end.

    Cells that change the ranking are crossed out, and flagged ones have their flag's outline.
    """
    names = [
        textwrap.fill(cell.label, _NAME_CHARACTERS, break_on_hyphens=False) for cell, *_ in measured
    ]
    row_in = 0.1 + _LINE_IN * max(1 + name.count("\n") for name in names)
    crossed = any(cell.disqualified for cell, *_ in measured)
    entries = [disqualified_entry()] if crossed else []
    entries += flag_entries(cell for cell, *_ in measured)
    title = f"{PAIRS_PER_S.title} and {P95_LATENCY.title} of {counted(len(measured), 'cell')}"
    height_in = 1.25 + row_in * len(names) + LEGEND_ROW_IN * legend_rows(entries)
    with figure(height_in) as made:
        panels = made.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.1})
        for panel, title_of_axis, colour, estimates in (
            (panels[0], rate_label(measured), PALETTE[0], [rate for _, rate, _ in measured]),
            (panels[1], P95_LATENCY.label, PALETTE[1], [p95 for *_, p95 in measured]),
        ):
            _draw_bars(panel, estimates, colour)
            panel.set(xlabel=title_of_axis)
        for row, (cell, rate, p95) in enumerate(measured):
            draw_flags(panels[0], cell, rate.value / 2, row)
            for panel, estimate in zip(panels, (rate, p95), strict=True):
                if cell.disqualified:
                    panel.plot(_length(estimate) / 2, row, **CROSS_STYLE)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(measured) - 0.5, -0.5)
        headline(
            made, title.capitalize(), "Error bars are 95 % intervals." * has_intervals(measured)
        )
        if entries:
            legend_below(made, entries)
        _write_values(panels[0], [rate for _, rate, _ in measured])
        _write_values(panels[1], [p95 for *_, p95 in measured])
        return save(made, folder, "by_cell")


def _draw_bars(panel: Axes, estimates: Sequence[Estimate], colour: str) -> None:
    panel.barh(
        np.arange(len(estimates)), [_length(estimate) for estimate in estimates], height=0.6,
        color=colour, xerr=error_bars(estimates), error_kw={"elinewidth": 1},
    )  # fmt: skip
    panel.locator_params(axis="x", nbins=4)
    panel.grid(visible=False, axis="y")


def _write_values(panel: Axes, estimates: Sequence[Estimate]) -> None:
    """Write each value behind its bar, or behind its error bar if it has one."""
    number_bars(
        panel,
        range(len(estimates)),
        [_length(estimate) + (estimate.above or 0.0) for estimate in estimates],
        [estimate_text(e) if math.isfinite(e.value) else "n/a" for e in estimates],
    )


def _length(estimate: Estimate) -> float:
    return estimate.value if math.isfinite(estimate.value) else 0.0
