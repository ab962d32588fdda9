"""What an interval estimates: one run, or a configuration that was measured several times."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.report.cells import CellSummary

OF_THIS_RUN = "of this run"


def interval_scope(cells: Sequence[CellSummary]) -> str:
    """What the cells' 95 % intervals are of, to follow the word "interval".

    Within one run, an interval does not show how much another run of the same configuration would
    differ. Only repeats can show that.
    """
    counts = sorted({cell.finished for cell in cells if cell.throughput is not None})
    if not counts or counts[-1] == 1:
        return OF_THIS_RUN
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"of this configuration, from {runs} repeats"
