"""The MLflow runs of a sweep that is resumed: each finished cell has exactly one finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossbench.results import RunResult
from crossbench.sweeps.upload import upload_cells
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import Tracker


def resume_runs(
    folder: Path,
    known: str | None,
    title: str,
    overrides: Sequence[str],
    kept: Mapping[Path, RunResult],
    tracker: Tracker,
) -> str | None:
    """Return the id of the sweep's parent run, which is running again.

    `known` is its id if the killed process has stored it; if not, an unfinished run of this sweep
    is used, or a new one named `title` is opened. Cells' runs that were left open are ended as
    killed, unless their cell is in `kept`: then they are completed.

    Raises:
        TrackingError: the store cannot be reached or refused a write.
    """
    if not isinstance(tracker, MlflowTracker):
        return tracker.start_sweep(folder.name, title, overrides)
    stored = tracker.find(folder.name)
    parents = [run for run in stored if run.number is None]
    parent = next((run for run in parents if run.run_id == known), None)
    if parent is None:
        parent = next((run for run in parents if not run.complete), None)
    if parent is None:
        return tracker.start_sweep(folder.name, title, overrides)
    tracker.reopen(parent.run_id)
    for run in stored:
        if run.parent_id == parent.run_id and not run.complete:
            tracker.end_killed(run.run_id)
    upload_cells(folder, kept, stored, parent.run_id, tracker)
    return parent.run_id
