"""Take the output folder of a sweep or of a single cell; a folder belongs to one run only.

A folder named after the time gets another name if that one exists. A folder named by the user is
refused if another run uses it or if it is not empty.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import sys
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
from crossbench.settings.stored_plan import PLAN_FILE
from crossbench.sweeps.child import WAITING_LOG_FILE
from crossbench.sweeps.state import STATE_FILE
from crossbench.system.credentials import hide_config
from crossbench.system.files import PARTIAL
from crossbench.system.folder_lock import LOCK_FILE, is_held
from crossbench.system.stop_signals import stopped_by
from crossbench.wording import counted

INTERRUPTED_FILE = "INTERRUPTED"
MULTIRUN_FILE = "multirun.yaml"
OFFLINE_FILE = ".tracker-offline"  # the tracker has failed; a resumed run removes it
SUBDIR = "${hydra.job.num}"
# Files of a run that was killed before its first cell; the next run may replace them
_LEFTOVERS = frozenset(
    {
        LOCK_FILE, STATE_FILE, INTERRUPTED_FILE, JOURNAL_FILE, DASHBOARD_LOG_FILE,
        WAITING_LOG_FILE, MULTIRUN_FILE, PLAN_FILE, OFFLINE_FILE,
    }
)  # fmt: skip
_TIME_RESOLVER = "${now:"
_LOCK_TIMEOUT_S = 0.5  # `is_held` locks the file for a much shorter time
_SHOWN_NAMES = 4


@dataclass(frozen=True)
class TakenFolder:
    """A folder that only this process uses until `release`, or until the process ends."""

    path: Path
    _lock: IO[str]

    def release(self) -> None:
        self._lock.close()


def is_interrupted(folder: Path) -> bool:
    """Return whether the sweep in `folder` was told to stop."""
    return (folder / INTERRUPTED_FILE).exists() or bool(stopped_by())


def mark_interrupted(folder: Path) -> None:
    """Tell the other processes of the sweep to start no cell; this one knows it already."""
    with contextlib.suppress(OSError):
        (folder / INTERRUPTED_FILE).touch()


def take_output_folder(config: DictConfig, mode: RunMode) -> TakenFolder:
    """Take the folder that Hydra is about to use, and give Hydra its absolute path.

    Raises:
        ConfigError: another run uses the folder, it is not empty, or it cannot be created.
    """
    group = "sweep" if mode is RunMode.MULTIRUN else "run"
    key = f"hydra.{group}.dir"
    raw = OmegaConf.to_container(config.hydra[group], resolve=False)
    assert isinstance(raw, dict)
    if mode is RunMode.MULTIRUN and raw["subdir"] != SUBDIR:
        raise ConfigError(
            f"hydra.sweep.subdir={raw['subdir']} cannot be used: the folders of cells must be "
            "named by their numbers. Leave it out; hydra.sweep.dir=DIR sets the folder of the sweep"
        )
    if not str(config.outputs_dir).strip():
        raise ConfigError("outputs_dir is empty: give outputs_dir=DIR, or leave it out")
    folder = absolute(config.hydra[group].dir, key)
    # As in a sweep, a single cell has the subfolder 0
    inside = mode is RunMode.RUN and folder.name.isdecimal()
    if _TIME_RESOLVER in str(raw["dir"]):
        taken = take_new(folder.parent if inside else folder)
        used = taken.path / folder.name if inside else taken.path
    else:
        if inside and _is_of_a_sweep(folder.parent):
            raise ConfigError(
                f"{key}={folder} is inside the folder of another run, which would count it as one "
                "of its own cells: give a new folder"
            )
        taken = take_named(folder, key)
        used = taken.path
    use_folder(config, used, key)
    return taken


def use_folder(config: DictConfig, folder: Path, key: str) -> None:
    """Make Hydra use `folder` for the run; `key` is the override that names it."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra["sweep" if "sweep" in key else "run"].dir = str(folder)
        # Launchers compose the config of each job again from the overrides
        config.hydra.overrides.hydra.append(f"{key}={quoted(str(folder))}")
        document = OmegaConf.to_container(config, resolve=False)
        subdir = config.hydra.output_subdir
        if subdir is not None and hide_config(document) != document:
            print(
                f"crossbench: hydra.output_subdir={subdir} has no effect: Hydra would store the "
                "credentials of this command; config.yaml has everything else",
                file=sys.stderr,
            )
            config.hydra.output_subdir = None
            config.hydra.overrides.hydra.append("hydra.output_subdir=null")


def absolute(path: str, key: str) -> Path:
    """Return `path` as an absolute path, with `~` replaced by the home folder.

    Raises:
        ConfigError: the home folder is not known.
    """
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{key}={path}: {error}: give an absolute path") from error
    return Path(os.path.abspath(expanded))  # noqa: PTH100 (symbolic links stay as they were given)


def take_new(folder: Path) -> TakenFolder:
    """Create `folder`, or `folder`_2, `folder`_3 and so on if it exists already.

    Raises:
        ConfigError: the folder cannot be created.
    """
    with _os_errors_as_config_errors(folder):
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
    """Take `folder`: a new or empty one, or one of a run that was killed before its first cell.

    `key` is the override that names the folder.

    Raises:
        ConfigError: another run uses the folder, it is not empty, or it cannot be created.
    """
    _refuse_used_folder(folder, key)
    with _os_errors_as_config_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        taken = hold(folder, key)
        try:
            _refuse_used_folder(folder, key, locked_here=True)
        except ConfigError:  # another run used it in the meantime
            taken.release()
            raise
        for path in folder.iterdir():
            if path.name != LOCK_FILE and _is_leftover(path.name):
                path.unlink()
    return taken


def _is_leftover(name: str) -> bool:
    return name in _LEFTOVERS or name.endswith(PARTIAL)


def hold(folder: Path, key: str) -> TakenFolder:
    """Lock an existing folder, which need not be empty.

    Raises:
        ConfigError: another run uses it.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            return _lock(folder)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigError(_in_use_message(folder, key)) from None
            time.sleep(0.05)


def home_of(cell: Path) -> Path:
    """Return the folder that the run of a single cell has taken: `cell` or its parent."""
    if not (cell / LOCK_FILE).exists() and (cell.parent / LOCK_FILE).exists():
        return cell.parent
    return cell


def place_of(cell: Path) -> tuple[str, int]:
    """Return the name of a cell's sweep and the cell's number in it.

    A cell whose folder name is not a number is number 0 of a sweep with the folder's name.
    """
    if cell.name.isdecimal():
        return cell.parent.name, int(cell.name)
    return cell.name, 0


def _lock(folder: Path) -> TakenFolder:
    """Lock the folder; raise BlockingIOError if another run has locked it."""
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:
        pass  # a file system without locks: creating a new folder is the only protection
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return TakenFolder(folder, file)


def _is_of_a_sweep(folder: Path) -> bool:
    return (folder / STATE_FILE).exists() or (folder / LOCK_FILE).exists()


def _refuse_used_folder(folder: Path, key: str, locked_here: bool = False) -> None:
    if not folder.exists():
        return
    if not locked_here and is_held(folder):
        raise ConfigError(_in_use_message(folder, key))
    with _os_errors_as_config_errors(folder):
        names = sorted(path.name for path in folder.iterdir())
    if STATE_FILE in names or LOCK_FILE in names:
        names = [name for name in names if not _is_leftover(name)]
    if not names:
        return
    cells = len(cell_folders(folder)) or int((folder / RESULT_FILE).exists())
    if cells:
        raise ConfigError(
            f"{key}={folder} has {counted(cells, 'cell')} of an earlier run, which the new report "
            "would include: give a new folder, or move this one away first"
        )
    shown = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
    raise ConfigError(
        f"{key}={folder} is not empty ({shown}), and results need their own folder: give a new or "
        "empty one"
    )


def _in_use_message(folder: Path, key: str) -> str:
    try:
        pid = (folder / LOCK_FILE).read_text("utf-8").strip()
    except OSError:
        pid = ""
    who = f" (process {pid})" if pid else ""
    return (
        f"{key}={folder} is in use by another run{who}: wait until it ends, or give another folder"
    )


@contextlib.contextmanager
def _os_errors_as_config_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be used ({error.strerror or error}): give a writable "
            "folder, for example outputs_dir=DIR"
        ) from error
