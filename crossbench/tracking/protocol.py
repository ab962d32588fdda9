"""Where runs that people compare are kept: a narrow Tracker protocol, and the one that keeps none.

`mlflow_store.py` has the other, `sync.py` uploads later what a tracker could not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossbench.results import RunResult


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cell's results lie, which tells its run from all others: sweep's folder, number."""

    sweep: str
    number: int


class Tracker(Protocol):
    """Where runs are kept. Every method raises TrackingError when that place fails."""

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        """Open the parent run of a sweep; `overrides` are its command line. Returns the run's id.

        None where nothing is tracked; such a run is not finished either.
        """
        ...

    def start_cell(self, name: str, parent_id: str | None, place: Place) -> str | None:
        """Open a cell's run, under its sweep's where there is one. Returns the run's id."""
        ...

    def finish_cell(
        self, run_id: str, result: RunResult, folder: Path, interrupted: bool = False
    ) -> None:
        """Write all that the cell found out, with the files in its `folder`, and end its run."""
        ...

    def finish_sweep(
        self, run_id: str, results: Sequence[RunResult], folder: Path, interrupted: bool
    ) -> None:
        """Write the sweep's report and what its cells come to, and end the parent run."""
        ...


@dataclass(frozen=True)
class NoTracker:
    """Keeps nothing: the results on disk are all there is."""

    name: str

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        return None

    def start_cell(self, name: str, parent_id: str | None, place: Place) -> str | None:
        return None

    def finish_cell(
        self, run_id: str, result: RunResult, folder: Path, interrupted: bool = False
    ) -> None:
        """Nothing to end."""

    def finish_sweep(
        self, run_id: str, results: Sequence[RunResult], folder: Path, interrupted: bool
    ) -> None:
        """Nothing to end."""
