"""Find the check of an earlier repeat: the repeats of a cell compute the same scores."""

from __future__ import annotations

from pathlib import Path

from crossbench.errors import ResultError
from crossbench.measure.ranking import Verdict
from crossbench.results import Status, cell_folders, load_result
from crossbench.settings.cell_config import CellConfig


def earlier_check(folder: Path, config: CellConfig) -> str:
    """Return the name of the folder in which a repeat of this cell was checked; empty if none was.

    `folder` is that of the cell, in the folder of its sweep.
    """
    if not config.value("repeat"):
        return ""
    for other in cell_folders(folder.parent):
        if other.name == folder.name:
            continue
        try:
            result = load_result(other)
        except ResultError:  # it runs at this moment, or did not end
            continue
        verdict = result.quality.get("verdict", Verdict.UNCHECKED)
        if (
            result.status == Status.FINISHED
            and result.cell_id == config.cell_id
            and verdict != Verdict.UNCHECKED
        ):
            return other.name
    return ""
