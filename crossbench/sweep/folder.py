"""The folder of a sweep or of a lone cell: taken by one run at a time, never shared.

A folder whose name comes from the time of day gets another name where that one is taken. One that
the user has named is refused where another run holds it or where something lies in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from crossbench.dashboard.process import JOURNAL_FILE
from crossbench.dashboard.process import LOG_FILE as DASHBOARD_LOG_FILE
from crossbench.errors import ConfigError
from crossbench.results import RESULT_FILE, cell_folders
from crossbench.settings.command_line import quoted
from crossbench.sweep.child import WAITING_LOG_FILE
from crossbench.wording import counted

STATE_FILE = "sweep.json"
INTERRUPTED_FILE = "INTERRUPTED"
LOCK_FILE = ".lock"  # locked while a run holds the folder; the system unlocks it when that ends
SUBDIR = "${hydra.job.num}"
# What a run that was killed before its first cell leaves behind; the next one may replace it
_LEFTOVERS = frozenset(
    {
        LOCK_FILE, STATE_FILE, INTERRUPTED_FILE, JOURNAL_FILE, DASHBOARD_LOG_FILE,
        WAITING_LOG_FILE, "multirun.yaml",
    }
)  # fmt: skip
_FROM_THE_TIME = "${now:"
_PATIENCE_S = 0.5  # a lock that is only looked at is free again sooner
_SHOWN_NAMES = 4


@dataclass(frozen=True)
class TakenFolder:
    """A folder that is this process's alone until `release`, or until the process ends."""

    path: Path
    _lock: IO[str]

    def release(self) -> None:
        self._lock.close()


@dataclass(frozen=True, slots=True)
class SweepState:
    """A sweep of several cells, as its folder remembers it; `axes` are the keys that it varies."""

    name: str
    cells: int
    parent_run_id: str | None
    pid: int
    dashboard_url: str | None
    axes: tuple[str, ...]


def read_state(folder: Path) -> SweepState:
    state = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return SweepState(**{**state, "axes": tuple(state["axes"])})


def take_output_folder(config: DictConfig, mode: RunMode) -> TakenFolder:
    """Take the folder that Hydra is about to use, and have Hydra use it by its absolute path.

    Raises:
        ConfigError: the folder is another run's, holds something, or cannot be made.
    """
    group = "sweep" if mode is RunMode.MULTIRUN else "run"
    key = f"hydra.{group}.dir"
    raw = OmegaConf.to_container(config.hydra[group], resolve=False)
    assert isinstance(raw, dict)
    if mode is RunMode.MULTIRUN and raw["subdir"] != SUBDIR:
        raise ConfigError(
            f"hydra.sweep.subdir={raw['subdir']} cannot be used: the cells of a sweep are found by "
            "their numbers. Leave it out; hydra.sweep.dir=DIR names the folder of the sweep"
        )
    if not str(config.outputs_dir).strip():
        raise ConfigError("outputs_dir is empty: give outputs_dir=DIR, or leave it out")
    folder = absolute(config.hydra[group].dir, key)
    # By convention a lone cell is number 0 in a folder of its own, as in a sweep
    inside = mode is RunMode.RUN and folder.name.isdecimal()
    if _FROM_THE_TIME in str(raw["dir"]):
        taken = take_new(folder.parent if inside else folder)
        used = taken.path / folder.name if inside else taken.path
    else:
        if inside and _is_of_a_sweep(folder.parent):
            raise ConfigError(
                f"{key}={folder} lies in the folder of another run, which would count it as one of "
                "its own cells: give a new folder"
            )
        taken = take_named(folder, key)
        used = taken.path
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra[group].dir = str(used)
        # A launcher composes each job's config again, from the overrides
        config.hydra.overrides.hydra.append(f"{key}={quoted(str(used))}")
    return taken


def absolute(path: str, key: str) -> Path:
    """`path` from the current directory, with the home folder for `~`.

    Raises:
        ConfigError: the home folder is not known.
    """
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{key}={path}: {error}: give the whole path") from error
    return Path(os.path.abspath(expanded))  # noqa: PTH100 (symbolic links stay as they were given)


def take_new(folder: Path) -> TakenFolder:
    """Make `folder`; where there is one already, `folder`_2, `folder`_3 and so on.

    Raises:
        ConfigError: it cannot be made.
    """
    with _words_for_the_system(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            try:
                folder.mkdir()
            except FileExistsError:
                base = folder.name if number == 2 else folder.name.rpartition("_")[0]
                folder = folder.with_name(f"{base}_{number}")
            else:
                return _lock(folder)
    raise AssertionError("unreachable")


def take_named(folder: Path, key: str) -> TakenFolder:
    """Take `folder`, which is new or empty, or was left by a run that has no cells.

    Raises:
        ConfigError: another run holds it, it is not empty, or it cannot be made. `key` is the
            override that names it.
    """
    _refuse_what_holds_something(folder, key)
    with _words_for_the_system(folder):
        folder.mkdir(parents=True, exist_ok=True)
        taken = hold(folder, key)
        try:
            _refuse_what_holds_something(folder, key, mine=True)
        except ConfigError:  # somebody was here in between
            taken.release()
            raise
        for name in _LEFTOVERS - {LOCK_FILE}:
            (folder / name).unlink(missing_ok=True)
    return taken


def hold(folder: Path, key: str) -> TakenFolder:
    """Lock a folder that exists, whatever lies in it.

    Raises:
        ConfigError: another run holds it.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _lock(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigError(_held_words(folder, key)) from None
            time.sleep(0.05)


def is_held(folder: Path) -> bool:
    """Whether a run that is alive holds the folder."""
    try:
        with (folder / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or no locks on this file system
        return False
    return False


def home_of(cell: Path) -> Path:
    """The folder that the run of a lone cell has taken: the cell's own, or the one around it."""
    if not (cell / LOCK_FILE).exists() and (cell.parent / LOCK_FILE).exists():
        return cell.parent
    return cell


def place_of(cell: Path) -> tuple[str, int]:
    """The name of the sweep that a cell's folder belongs to, and the cell's number in it.

    A cell whose folder has no number is alone, and a sweep of its own name.
    """
    if cell.name.isdecimal():
        return cell.parent.name, int(cell.name)
    return cell.name, 0


def _lock(folder: Path) -> TakenFolder:
    """Raises BlockingIOError where another run holds the folder."""
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:
        pass  # a file system without locks: making the folder is all the protection there is
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return TakenFolder(folder, file)


def _is_of_a_sweep(folder: Path) -> bool:
    return (folder / STATE_FILE).exists() or (folder / LOCK_FILE).exists()


def _refuse_what_holds_something(folder: Path, key: str, mine: bool = False) -> None:
    if not folder.exists():
        return
    if not mine and is_held(folder):
        raise ConfigError(_held_words(folder, key))
    with _words_for_the_system(folder):
        names = sorted(path.name for path in folder.iterdir())
    if STATE_FILE in names or LOCK_FILE in names:
        names = [name for name in names if name not in _LEFTOVERS]
    if not names:
        return
    cells = len(cell_folders(folder)) or int((folder / RESULT_FILE).exists())
    if cells:
        raise ConfigError(
            f"{key}={folder} has {counted(cells, 'cell')} of an earlier run, which a new report "
            "would mix with its own: give a new folder, or move that one away first"
        )
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
    raise ConfigError(
        f"{key}={folder} is not empty ({shown}), and results need a folder of their own: give a "
        "new or an empty one"
    )


def _held_words(folder: Path, key: str) -> str:
    try:
        pid = (folder / LOCK_FILE).read_text("utf-8").strip()
    except OSError:
        pid = ""
    who = f" (process {pid})" if pid else ""
    return f"{key}={folder} is in use by another run{who}: wait for its end, or give another folder"


@contextlib.contextmanager
def _words_for_the_system(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be used ({error.strerror or error}): give one that can be "
            "written, for example outputs_dir=DIR"
        ) from error
