"""The Tracker protocol, and the tracker that stores nothing.

`mlflow_store.py` has the MLflow tracker; `sync.py` later uploads results that could not be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossbench.results import RunResult


@dataclass(frozen=True, slots=True)
class CellRef:
    """Identifies a cell's run: the name of the sweep's folder and the cell's number."""

    sweep: str
    number: int


class Tracker(Protocol):
    """Stores runs. Every method raises TrackingError if the store fails."""

    def prepare(self) -> None:
        """Import libraries and create an embedded store; ask no server.

        The other methods do so too. They then take as long as the store needs.
        """
        ...

    def end_lost_runs(self) -> int:
        """End the runs of this machine whose process has ended without doing so; count them.

        Runs of other machines, and those of older versions, stay as they are.
        """
        ...

    def start_sweep(self, folder: str, title: str, overrides: Sequence[str]) -> str | None:
        """Open the parent run of a sweep, named `title`, and return its id.

        `folder` is the name of its folder, and `overrides` are its command line.
        Returns None if nothing is tracked; then `finish_sweep` is not called.
        """
        ...

    def start_cell(self, name: str, parent_id: str | None, cell: CellRef) -> str | None:
        """Open a cell's run, as a child of `parent_id` if given, and return its id."""
        ...

    def finish_cell(
        self,
        run_id: str,
        result: RunResult,
        folder: Path,
        interrupted: bool = False,
        *,
        axes: Sequence[str] = (),
        whole: bool = True,
    ) -> None:
        """Store the cell's result and the files in its `folder`, and end its run.

        `axes` are the keys that its sweep varies; a cell that is measured alone has none.
        Unless `whole`, `folder` lacks some of them, and a later upload completes the run.
        """
        ...

    def finish_sweep(
        self, run_id: str, results: Sequence[RunResult], folder: Path, interrupted: bool
    ) -> None:
        """Store the sweep's report and summary metrics, and end the parent run."""
        ...


@dataclass(frozen=True)
class NoTracker:
    """Stores nothing: the results are only on disk."""

    name: str

    def prepare(self) -> None:
        """Do nothing."""

    def end_lost_runs(self) -> int:
        return 0

    def start_sweep(self, folder: str, title: str, overrides: Sequence[str]) -> str | None:
        return None

    def start_cell(self, name: str, parent_id: str | None, cell: CellRef) -> str | None:
        return None

    def finish_cell(
        self,
        run_id: str,
        result: RunResult,
        folder: Path,
        interrupted: bool = False,
        *,
        axes: Sequence[str] = (),
        whole: bool = True,
    ) -> None:
        """Do nothing."""

    def finish_sweep(
        self, run_id: str, results: Sequence[RunResult], folder: Path, interrupted: bool
    ) -> None:
        """Do nothing."""
