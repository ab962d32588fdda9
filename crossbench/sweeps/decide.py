"""Decide after a block whether a sweep with `until_decided` needs another one."""

from __future__ import annotations

from pathlib import Path

from crossbench.measure.contrasts import Difference
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import read_runs
from crossbench.report.verdicts import sweep_verdicts


def undecided(folder: Path) -> list[str] | None:
    """Return the labels of the cells whose throughput cannot be told from the baseline's yet.

    As long as the runs do not show the spread from run to run, no cell is decided. None if fewer
    than two cells have a throughput that can be compared. The intervals are those of this look: see
    `measure.multiplicity.alpha_of_look`.
    """
    verdicts = sweep_verdicts(summarise_cells(read_runs(folder)))
    baseline, throughput = verdicts.baseline, verdicts.throughput
    if baseline is None or len(throughput.cells) < 2:
        return None
    found = throughput.against(baseline)
    labels = {cell.name: cell.label for cell in throughput.cells}
    return [
        labels[name]
        for name, contrast in found.items()
        if contrast.difference is Difference.UNKNOWN or not throughput.contrasts.spread_is_measured
    ]
