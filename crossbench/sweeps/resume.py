"""Resume a sweep: which of its runs are kept, which are measured again, and their folders."""

from __future__ import annotations

import fcntl
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig
from rich.markup import escape

from crossbench.errors import ConfigError, ResultError
from crossbench.report.axes import full_label
from crossbench.report.cell import REPORT_FILE, write_cell_report
from crossbench.results import (
    RESULT_FILE,
    UNFINISHED_CHECK,
    Failure,
    RunResult,
    Status,
    load_result,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.stored_plan import StoredPlan, read_plan
from crossbench.sweeps.child import LOG_FILE
from crossbench.sweeps.folder import INTERRUPTED_FILE, TakenFolder, hold, use_folder
from crossbench.sweeps.plan import SweepPlan
from crossbench.sweeps.services import console
from crossbench.system.command import os_error_message
from crossbench.system.files import remove_partial_files
from crossbench.wording import ABSENT, counted, join_first

ATTEMPT = re.compile(r"attempt_(\d+)")
_RETRIED = (Failure.CRASHED, Failure.TIMED_OUT)
_ORPHAN_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Resumed:
    """A sweep that goes on: its folder, its plan, and how many runs are missing.

    `kept` has the results that are not measured again, by the folder of their run.
    """

    taken: TakenFolder
    plan: StoredPlan
    missing: int
    kept: Mapping[Path, RunResult]


def resume(config: DictConfig, plan: SweepPlan, axes: Sequence[str]) -> Resumed:
    """Take the folder of the sweep that `config.resume` names, and prepare its missing runs.

    `plan` is made from the arguments of that sweep, and `axes` are the keys that it varies. Runs
    that are kept are named in the terminal.

    Raises:
        ConfigError: another process uses the folder, or the sweep would have other cells today.
    """
    folder = Path(config.resume)
    taken = hold(folder, "resume")
    stored = read_plan(folder)
    if stored is None or len(stored.cells) != len(plan.cells):
        taken.release()
        raise ConfigError(
            f"resume={folder}: the same command now names {counted(len(plan.cells), 'cell')}, but "
            f"the sweep has {len(stored.cells) if stored else 0}, because conf/ or a file has "
            "changed: start a new sweep"
        )
    stored = replace(stored, cells=plan.cells)
    stored.save(folder)
    use_folder(config, folder, "hydra.sweep.dir")
    (folder / INTERRUPTED_FILE).unlink(missing_ok=True)
    kept: dict[Path, RunResult] = {}
    for number, run in enumerate(stored.runs):
        cell = folder / str(number)
        _wait_for_orphan(cell)
        result = ended_result(cell)
        place = f"cell {number + 1}/{len(stored.runs)}"
        if result is not None and is_kept(result, cell, stored.cells[run.cell], config.retries):
            label = full_label(result.config, axes) if result.config else cell.name
            console.tell(escape(f"{place} {label}: {result.status} already"))
            _complete_report(cell)
            kept[cell] = result
        else:
            if result is not None and result.cell_id != stored.cells[run.cell] and result.config:
                today = plan.configs.get(stored.cells[run.cell])
                label = full_label(result.config, axes)
                why = _changes(result.config, today)
                console.tell(escape(f"{place} {label}: measured again, because {why}"))
            clear(cell, keep=result is not None)
    remove_partial_files(folder)
    return Resumed(taken, stored, len(stored.runs) - len(kept), kept)


def _changes(before: CellConfig, today: CellConfig | None) -> str:
    """The settings of a cell that have changed since it was measured."""
    if today is None:
        return "its settings have changed"
    old, new = before.comparable.texts, today.comparable.texts
    found = [
        f"{key} was {old.get(key, ABSENT)} and is {new.get(key, ABSENT)}"
        for key in dict.fromkeys([*old, *new])
        if key != "repeat" and old.get(key) != new.get(key)
    ]
    return join_first(found) or "what identifies it has changed"


def ended_result(cell: Path) -> RunResult | None:
    """Return the result of a run that ended by itself; None if its sweep was killed before."""
    try:
        result = load_result(cell)
    except ResultError:
        return None
    # The cell process writes its result before it checks the ranking, the parent its report after
    unfinished = result.quality.get("reason") == UNFINISHED_CHECK
    return None if unfinished and not (cell / REPORT_FILE).exists() else result


def is_kept(result: RunResult, cell: Path, cell_id: str, retries: int) -> bool:
    """Return whether a run is not measured again; `cell_id` is the id of its cell today."""
    if result.cell_id != cell_id:
        return False
    if result.status is not Status.FAILED:
        return True
    if result.failure == Failure.INTERRUPTED:
        return False
    earlier = [ended_result(attempt) for attempt in _attempts(cell)]
    retried = sum(1 for item in earlier if item is not None and item.failure in _RETRIED)
    return result.failure not in _RETRIED or retried >= retries


def _attempts(cell: Path) -> list[Path]:
    return [path for path in cell.glob("attempt_*") if ATTEMPT.fullmatch(path.name)]


def clear(cell: Path, *, keep: bool) -> None:
    """Empty the folder of a run, except for earlier attempts.

    If `keep`, what is there becomes an attempt itself. A run that was killed with its sweep leaves
    nothing worth keeping.
    """
    if not cell.exists():
        return
    attempts = _attempts(cell)
    files = [path for path in cell.iterdir() if path not in attempts]
    if not keep:
        (cell / RESULT_FILE).unlink(missing_ok=True)  # first: a kill now must not keep half a run
        for path in files:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    attempt = cell / f"attempt_{len(attempts) + 1}"
    attempt.mkdir()
    # The result goes last: after a kill in between, the next resume moves what is left
    for path in sorted(files, key=lambda path: path.name == RESULT_FILE):
        path.rename(attempt / path.name)


def _complete_report(cell: Path) -> None:
    """Write the report of a finished run whose sweep was killed before it could do so."""
    if (cell / REPORT_FILE).exists():
        return
    try:
        write_cell_report(cell)
    except OSError as error:
        console.print(f"[yellow]report:[/] {escape(os_error_message(error))}")


def _wait_for_orphan(cell: Path) -> None:
    """Wait until the cell process of a killed sweep has ended: it holds the lock of its log.

    Raises:
        ConfigError: it still runs after some seconds.
    """
    deadline = time.monotonic() + _ORPHAN_TIMEOUT_S
    while True:
        try:
            with (cell / LOG_FILE).open() as log:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"the process that measured {cell} for the killed sweep still runs: end it, "
                    "then resume the sweep"
                ) from None
            time.sleep(0.1)
        except OSError:  # no such file, or a file system without locks
            return
