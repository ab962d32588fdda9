"""`python -m crossbench.sync [SWEEP ...] [tracker.uri=URI]`: upload results that the tracker lacks.

SWEEP is a folder in outputs/; the default is all of them. Uploaded results are left unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from crossbench.errors import ConfigError, ResultError, TrackingError
from crossbench.settings.command_line import options_first
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.run import run_settings
from crossbench.sweeps.folder import absolute
from crossbench.sweeps.services import call_within, make_tracker
from crossbench.sweeps.upload import Uploaded, cells_of, is_sweep, sweep_folders, upload_sweep
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.wording import counted


def sync(folders: Sequence[str], config: DictConfig) -> None:
    """Upload the sweeps and print a summary of each.

    The store has `tracker.timeout_s` seconds for its first answer, and then for each cell.

    Raises:
        ConfigError: the tracker is not MLflow.
        ResultError: a folder is not a sweep, or there is no sweep; or, after the others are
            uploaded, the files of a sweep are unusable.
        TrackingError: the store fails or is too slow; says how many sweeps have to wait.
    """
    run = run_settings(config, list(HydraConfig.get().overrides.task))
    tracker = make_tracker(run)
    if not isinstance(tracker, MlflowTracker):
        raise ConfigError(f"tracker={run.tracker.name} stores nothing: give tracker=mlflow")
    sweeps = [_sweep(Path(folder)) for folder in folders]
    if not folders:
        sweeps = sweep_folders(absolute(run.outputs_dir, "outputs_dir"))
    if not sweeps:
        _end_lost_runs(tracker)
        raise ResultError(f"there is no sweep in {run.outputs_dir}: give the folder of a sweep")
    done, unusable = 0, list[str]()
    try:
        call_within(tracker.timeout_s, tracker, lambda store: store.find(sweeps[0].name))
        for folder in sweeps:
            limit_s = tracker.timeout_s * (len(cells_of(folder)) + 1)
            try:
                uploaded = call_within(limit_s, tracker, partial(upload_sweep, folder))
                print(_summary(uploaded), flush=True)
            except ResultError as error:  # the other sweeps are uploaded first
                unusable.append(str(error))
            done += 1
    except TrackingError as error:
        waiting = f"{len(sweeps) - done:,} of {counted(len(sweeps), 'sweep')} not uploaded"
        raise TrackingError(f"{error} ({waiting}: give the same command again later)") from error
    _end_lost_runs(tracker)
    if unusable:
        raise ResultError("\n".join(unusable))


def _end_lost_runs(tracker: MlflowTracker) -> None:
    if ended := call_within(tracker.timeout_s, tracker, MlflowTracker.end_lost_runs):
        print(f"{counted(ended, 'run')} without a result, of processes that have ended: now KILLED")


def _sweep(folder: Path) -> Path:
    if not folder.is_dir() or not is_sweep(folder):
        raise ResultError(f"{folder} has no cell with a result: give the folder of a sweep")
    return folder


def _summary(done: Uploaded) -> str:
    if done.still_running:
        return f"{done.sweep}: still running, skipped"
    parts = [f"{done.uploaded} uploaded", f"{done.present} already present"]
    if done.without_result:
        parts.append(f"{done.without_result} without a result")
    return f"{done.sweep}: {', '.join(parts)}"


def main() -> None:
    """Run the command."""
    try:
        options, words = options_first(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"crossbench: {error}")
    given = [word for word in words if "=" not in word or Path(word).is_dir()]
    sys.argv[1:] = [*options, *(word for word in words if word not in given)]
    launch(partial(sync, given), choices=["hydra/help=sync", *NO_CELLS])


if __name__ == "__main__":
    main()
