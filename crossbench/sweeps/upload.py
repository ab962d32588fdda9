"""Upload to an MLflow store what it lacks of a sweep's folder."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from omegaconf import OmegaConf

from crossbench.errors import ConfigError, ResultError
from crossbench.report.axes import label, varying
from crossbench.report.cell import REPORT_FILE
from crossbench.report.suite import SUITE_FILE
from crossbench.report.sweep import read_runs
from crossbench.results import RESULT_FILE, RunResult, cell_folders, load_result
from crossbench.settings.sweep_state import STATE_FILE, read_state
from crossbench.sweeps.folder import (
    INTERRUPTED_FILE,
    MULTIRUN_FILE,
    hold,
    home_of,
    place_of,
)
from crossbench.system.files import remove_partial_files
from crossbench.system.folder_lock import is_held
from crossbench.tracking.mlflow_format import unix
from crossbench.tracking.mlflow_store import MlflowTracker, StoredRun
from crossbench.tracking.protocol import CellRef

# Names that uploads give to the parent runs of this sweep before they open them; ids in older ones
UPLOADS_FILE = ".uploads"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The outcome for one sweep: cells that were uploaded, already present, or without a result."""

    sweep: str
    uploaded: int
    present: int
    without_result: int
    still_running: bool = False


def sweep_folders(outputs: Path) -> list[Path]:
    """Return the folders in `outputs` that have cells, those of suites included, sorted by name."""
    if not outputs.is_dir():
        return []
    found: list[Path] = []
    for folder in sorted(path for path in outputs.iterdir() if path.is_dir()):
        studies = sorted(path for path in folder.iterdir() if path.is_dir())
        found += studies if (folder / SUITE_FILE).exists() else [folder]
    return [path for path in found if is_sweep(path)]


def is_sweep(folder: Path) -> bool:
    """Return whether `folder` has results, of a sweep or of a single cell."""
    return any((cell / RESULT_FILE).exists() for cell in cells_of(folder))


def cells_of(folder: Path) -> list[Path]:
    """Return the folders of the cells in `folder`, which may be that of a single cell."""
    is_lone = (folder / RESULT_FILE).exists() and not (folder.parent / STATE_FILE).exists()
    return [folder] if is_lone else cell_folders(folder)


def upload_sweep(folder: Path, tracker: MlflowTracker) -> Uploaded:
    """Upload what the store lacks of the sweep in `folder`; a second call uploads nothing.

    A run is matched to a cell by the names of sweep and host, the cell's number and its start time.
    A run that was opened but not completed is completed.

    Raises:
        TrackingError: the store cannot be reached or refused a write.
        ResultError: no cell has a readable result, or the sweep's own file is unusable.
    """
    folder = folder.resolve()
    cells = cells_of(folder)
    with _alone(folder) as alone:
        if not alone:
            sweep = place_of(folder)[0] if cells == [folder] else folder.name
            return Uploaded(sweep, 0, 0, 0, still_running=True)
        return _upload_sweep(folder, cells, tracker)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Keep other uploads and runs away from the folder; yield False if one uses it already."""
    if _is_running(folder):
        yield False
        return
    try:
        taken = hold(home_of(folder), "sync")
    except ConfigError:  # taken a moment ago
        yield False
        return
    except OSError:  # somebody else's folder, which can only be read
        yield True
        return
    try:
        remove_partial_files(folder)
        yield True
    finally:
        taken.release()


def _upload_sweep(folder: Path, cells: Sequence[Path], tracker: MlflowTracker) -> Uploaded:
    results = dict[Path, RunResult]()
    for path in cells:
        with contextlib.suppress(ResultError):  # the result is missing, or of another version
            results[path] = load_result(path)
    missing = len(cells) - len(results)
    sweep = place_of(folder)[0] if cells == [folder] else folder.name
    if not results:
        raise ResultError(f"no cell in {folder} has a readable {RESULT_FILE}: nothing to upload")
    stored = _of_this_sweep(folder, results.values(), tracker.find(sweep))
    parent = _parent(folder, results.values(), stored, tracker)
    parent_id = parent.run_id if parent else None

    uploaded = upload_cells(folder, results, stored, parent_id, tracker)
    if parent is not None and (uploaded or parent.complete != str(len(cells))):
        all_results = [run.result for run in read_runs(folder)]
        interrupted = (folder / INTERRUPTED_FILE).exists() or not (folder / REPORT_FILE).exists()
        if parent.upload:
            tracker.log_overrides(parent.run_id, _overrides(folder))
        tracker.finish_sweep(
            parent.run_id, all_results, folder, interrupted, _written_s([*results][-1])
        )
    return Uploaded(sweep, uploaded, len(results) - uploaded, missing)


def upload_cells(
    folder: Path,
    results: Mapping[Path, RunResult],
    stored: Sequence[StoredRun],
    parent_id: str | None,
    tracker: MlflowTracker,
) -> int:
    """Upload the results, by cell folder, that `stored` lacks; return how many those are.

    A run that was opened but not completed is completed. `stored` are the runs of the sweep in
    `folder`, `parent_id` is the id of its parent run.

    Raises:
        TrackingError: the store cannot be reached or refused a write.
    """
    axes = _axes(folder, results.values())
    uploaded = 0
    for path, result in results.items():
        sweep, number = place_of(path)
        host = str(result.environment.get("host", ""))
        candidates = [run for run in stored if run.number == number]
        match = next((run for run in candidates if run.complete == result.started_at), None)
        if match is None:
            # A run under another parent belongs to another sweep of the same name
            ours = [run for run in candidates if run.parent_id in (None, parent_id)]
            begun = next((run for run in reversed(ours) if not run.complete), None)
            place, name = CellRef(sweep, number), f"cell {number}"
            if result.config:
                name = label(result.config, axes)
            match = begun or _open(name, result, parent_id, place, host, tracker)
            interrupted = (result.error or "").startswith("interrupted")
            tracker.finish_cell(
                match.run_id, result, path, interrupted, _written_s(path), axes=axes
            )
            uploaded += 1
        if parent_id is not None and match.parent_id != parent_id:
            tracker.set_parent(match.run_id, parent_id)
    return uploaded


def _of_this_sweep(
    folder: Path, results: Collection[RunResult], found: Sequence[StoredRun]
) -> list[StoredRun]:
    """Return the runs of the sweep in `folder` among those of all sweeps with its name.

    Its cells may have been measured on several machines, none of which need be that of its parent.
    """
    hosts = {str(result.environment.get("host", "")) for result in results}
    parent_id = read_state(folder).parent_run_id if (folder / STATE_FILE).exists() else None
    ids = {parent_id} - {None}
    return [run for run in found if run.host in hosts or {run.run_id, run.parent_id} & ids]


def _parent(
    folder: Path,
    results: Collection[RunResult],
    stored: Sequence[StoredRun],
    tracker: MlflowTracker,
) -> StoredRun | None:
    """Return the parent run of the sweep, opened if the store has none; None for a single cell.

    Sweeps in different folders may have the same name, so the run is found by its id, by the name
    that an upload has given it, or as the parent of one of this sweep's cells. An upload stores the
    name before it opens the run: if it is killed in between, the next one finds that run.
    """
    if not (folder / STATE_FILE).exists():
        return None
    state = read_state(folder)
    known = {state.parent_run_id}
    if (folder / UPLOADS_FILE).exists():
        known |= set((folder / UPLOADS_FILE).read_text("utf-8").split())
    started = {result.started_at for result in results}
    known |= {run.parent_id for run in stored if run.complete in started}
    for run in reversed(stored):
        if run.number is None and known & {run.run_id, run.upload}:
            return run
    first = next(iter(results))
    host = str(first.environment.get("host", ""))
    upload = uuid.uuid4().hex
    with contextlib.suppress(OSError), (folder / UPLOADS_FILE).open("a", encoding="utf-8") as file:
        file.write(f"{upload}\n")
    title, start_s = state.title or folder.name, unix(first.started_at) or None
    run_id = tracker.open_sweep(folder.name, title, first.environment, start_s, upload)
    return StoredRun(run_id, None, None, host, "", upload)


def _open(
    name: str,
    result: RunResult,
    parent_id: str | None,
    cell: CellRef,
    host: str,
    tracker: MlflowTracker,
) -> StoredRun:
    run_id = tracker.open_cell(name, parent_id, cell, host, unix(result.started_at) or None)
    return StoredRun(run_id, cell.number, parent_id, host, "", "")


def _axes(folder: Path, results: Collection[RunResult]) -> Sequence[str]:
    """Return the keys that the sweep in `folder` varies; those of old sweeps are found out."""
    if (folder / STATE_FILE).exists() and (axes := read_state(folder).axes):
        return axes
    return varying([result.config for result in results])


def _overrides(folder: Path) -> list[str]:
    """Return the overrides of the sweep, which Hydra has saved."""
    file = folder / MULTIRUN_FILE
    if not file.exists():
        return []
    hydra = OmegaConf.load(file).hydra
    swept = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    return [*swept, *map(str, hydra.overrides.task)]


def _written_s(cell: Path) -> float:
    return (cell / RESULT_FILE).stat().st_mtime


def _is_running(folder: Path) -> bool:
    """Return whether the sweep still runs on this machine and has no report yet."""
    if is_held(home_of(folder)):
        return True
    if not (folder / STATE_FILE).exists() or (folder / REPORT_FILE).exists():
        return False
    try:
        process = psutil.Process(read_state(folder).pid)
        # Process ids are reused: a process that started later is another one
        return process.create_time() <= (folder / STATE_FILE).stat().st_mtime
    except (psutil.Error, ValueError, OverflowError):  # no process can have that id
        return False
