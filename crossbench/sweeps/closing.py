"""Close a measured cell: write its report and end its MLflow run.

If its files cannot be written, that is tried again at the end of the next cell and of the run, so
that MLflow gets the files too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossbench.report.cell import write_cell_report
from crossbench.results import RESULT_FILE, Failure
from crossbench.sweeps.services import Tracking
from crossbench.sweeps.unsaved import unsaved_files


@dataclass(frozen=True, slots=True)
class MeasuredCell:
    """The folder of a measured cell, its MLflow run if there is one, and the axes of its sweep."""

    folder: Path
    run_id: str | None
    axes: tuple[str, ...]


class Closing:
    """Closes the cells of this process's run."""

    def __init__(self) -> None:
        self._waiting: list[MeasuredCell] = []

    def close(self, cell: MeasuredCell, tracking: Tracking, *, last: bool) -> None:
        """Close a cell, and those that wait; `last`: none can wait any longer.

        Raises:
            KeyboardInterrupt: a report was interrupted; the runs are ended all the same.
        """
        self._waiting.append(cell)
        self.close_waiting(tracking, last=last)

    def close_waiting(self, tracking: Tracking, *, last: bool) -> None:
        """Close the cells that wait; see `close`."""
        unsaved_files.write()
        waiting, self._waiting = self._waiting, []
        interrupted = False
        for cell in waiting:
            try:
                whole = _write_report(cell.folder)
            except KeyboardInterrupt:
                interrupted, whole = True, False
            if whole or last or interrupted:
                _end_run(cell, tracking, whole)
            else:
                self._waiting.append(cell)
        if interrupted:
            raise KeyboardInterrupt


def _write_report(cell: Path) -> bool:
    """Write the report of a cell; return whether all of its files are written."""
    if cell / RESULT_FILE in unsaved_files.of(cell):
        return False
    try:
        write_cell_report(cell)
    except OSError as error:
        unsaved_files.tell(error)
        return False
    return not unsaved_files.of(cell)


def _end_run(cell: MeasuredCell, tracking: Tracking, whole: bool) -> None:
    run_id = cell.run_id
    if run_id is None:
        return
    result = unsaved_files.result_of(cell.folder)
    interrupted = result.failure == Failure.INTERRUPTED
    tracking.attempt(
        lambda tracker: tracker.finish_cell(
            run_id, result, cell.folder, interrupted, axes=cell.axes, whole=whole
        )
    )


# Hydra calls the hooks of a sweep and its cells separately, so they share this object
closing = Closing()
