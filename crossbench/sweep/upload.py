"""From a sweep's folder to an MLflow store that has not all of it: what is missing, once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from omegaconf import OmegaConf

from crossbench.errors import ResultError
from crossbench.report.axes import full_label, varying
from crossbench.report.cell import REPORT_FILE
from crossbench.report.suite import SUITE_FILE
from crossbench.report.sweep import read_runs
from crossbench.results import RESULT_FILE, RunResult, cell_folders, load_result
from crossbench.sweep.folder import INTERRUPTED_FILE, STATE_FILE, home_of, is_held, place_of
from crossbench.tracking.mlflow_format import unix
from crossbench.tracking.mlflow_store import MlflowTracker, StoredRun
from crossbench.tracking.protocol import CellRef

UPLOADS_FILE = ".uploads"  # the ids of the runs that were opened for a sweep when it was uploaded


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of one sweep: cells that were uploaded, were there already, have no result."""

    sweep: str
    uploaded: int
    present: int
    without_result: int
    still_running: bool = False


def sweep_folders(outputs: Path) -> list[Path]:
    """The folders in `outputs` that hold cells, a suite's too, in the order of their names."""
    if not outputs.is_dir():
        return []
    found: list[Path] = []
    for folder in sorted(path for path in outputs.iterdir() if path.is_dir()):
        studies = sorted(path for path in folder.iterdir() if path.is_dir())
        found += studies if (folder / SUITE_FILE).exists() else [folder]
    return [path for path in found if is_sweep(path)]


def is_sweep(folder: Path) -> bool:
    """Whether there is a result in `folder`: of a sweep, or of a lone cell that it belongs to."""
    return any((cell / RESULT_FILE).exists() for cell in _cells(folder))


def _cells(folder: Path) -> list[Path]:
    is_lone = (folder / RESULT_FILE).exists() and not (folder.parent / STATE_FILE).exists()
    return [folder] if is_lone else cell_folders(folder)


def upload_sweep(folder: Path, tracker: MlflowTracker) -> Uploaded:
    """Write to the store what it lacks of the sweep in `folder`; a second call finds nothing.

    A cell's run is known by the names of its sweep and its host, the cell's number and the time at
    which it started. One that was opened and never written whole is completed.

    Raises:
        TrackingError: the store is out of reach or refused a write.
        ResultError: no cell has a result that can be read.
    """
    folder = folder.resolve()
    cells, results = _cells(folder), dict[Path, RunResult]()
    for path in cells:
        with contextlib.suppress(ResultError):  # one that is not there, or of another version
            results[path] = load_result(path)
    missing = len(cells) - len(results)
    sweep = place_of(folder)[0] if cells == [folder] else folder.name
    if _is_running(folder):
        return Uploaded(sweep, 0, 0, missing, still_running=True)
    if not results:
        raise ResultError(f"no cell in {folder} has a readable {RESULT_FILE}: nothing to upload")
    first = next(iter(results.values()))
    host = str(first.environment.get("host", ""))
    stored = [run for run in tracker.find(sweep) if run.host == host]
    parent = _parent(folder, results.values(), stored, tracker)
    parent_id = parent.run_id if parent else None
    axes = varying([result.config for result in results.values()])

    uploaded = 0
    for path, result in results.items():
        number = place_of(path)[1]
        same = [run for run in stored if run.number == number]
        whole = next((run for run in same if run.complete == result.started_at), None)
        if whole is None:
            ours = {None, parent_id}  # the others are of another sweep of this name
            begun = next((run for run in same if not run.complete and run.parent_id in ours), None)
            place, name = CellRef(sweep, number), f"cell {number}"
            if result.config:
                name = full_label(result.config, axes)
            whole = begun or _open(name, result, parent_id, place, host, tracker)
            interrupted = (result.error or "").startswith("interrupted")
            tracker.finish_cell(whole.run_id, result, path, interrupted, _written_s(path))
            uploaded += 1
        if parent_id is not None and whole.parent_id != parent_id:
            tracker.set_parent(whole.run_id, parent_id)
    if parent is not None and (uploaded or parent.complete != str(len(cells))):
        everything = [run.result for run in read_runs(folder)]
        interrupted = (folder / INTERRUPTED_FILE).exists() or not (folder / REPORT_FILE).exists()
        tracker.finish_sweep(
            parent.run_id, everything, folder, interrupted, _written_s([*results][-1])
        )
    return Uploaded(sweep, uploaded, len(results) - uploaded, missing)


def _parent(
    folder: Path,
    results: Collection[RunResult],
    stored: Sequence[StoredRun],
    tracker: MlflowTracker,
) -> StoredRun | None:
    """The sweep's own run, opened where the store has none; None for a cell that ran alone.

    Sweeps in different folders may have the same name: this one's run is known by its id, or by a
    cell of this one that is under it.
    """
    if not (folder / STATE_FILE).exists():
        return None
    known = {json.loads((folder / STATE_FILE).read_text("utf-8"))["parent_run_id"]}
    if (folder / UPLOADS_FILE).exists():
        known |= set((folder / UPLOADS_FILE).read_text("utf-8").split())
    started = {result.started_at for result in results}
    known |= {run.parent_id for run in stored if run.complete in started}
    for run in reversed(stored):
        if run.number is None and run.run_id in known:
            return run
    first = next(iter(results))
    host = str(first.environment.get("host", ""))
    run_id = tracker.open_sweep(
        folder.name, _overrides(folder), first.environment, unix(first.started_at) or None
    )
    with contextlib.suppress(OSError), (folder / UPLOADS_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{run_id}\n")
    return StoredRun(run_id, None, None, host, "")


def _open(
    name: str,
    result: RunResult,
    parent_id: str | None,
    cell: CellRef,
    host: str,
    tracker: MlflowTracker,
) -> StoredRun:
    run_id = tracker.open_cell(name, parent_id, cell, host, unix(result.started_at) or None)
    return StoredRun(run_id, cell.number, parent_id, host, "")


def _overrides(folder: Path) -> list[str]:
    """The command line of the sweep, as Hydra wrote it down."""
    file = folder / "multirun.yaml"
    if not file.exists():
        return []
    hydra = OmegaConf.load(file).hydra
    swept = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    return [*swept, *map(str, hydra.overrides.task)]


def _written_s(cell: Path) -> float:
    return (cell / RESULT_FILE).stat().st_mtime


def _is_running(folder: Path) -> bool:
    """Whether the process that began the sweep lives on this machine and has not reported yet."""
    if is_held(home_of(folder)):
        return True
    if not (folder / STATE_FILE).exists() or (folder / REPORT_FILE).exists():
        return False
    try:
        process = psutil.Process(json.loads((folder / STATE_FILE).read_text("utf-8"))["pid"])
        # An identifier is given again; a later process is another one
        return process.create_time() <= (folder / STATE_FILE).stat().st_mtime
    except psutil.Error:
        return False
