"""MLflow's embedded SQLite store: its creation, and repair instructions for a broken one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from crossbench.settings.command_line import in_shell
from crossbench.wording import counted

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URI = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)")
_COMPANIONS = (
    "",
    "-journal",
    "-wal",
    "-shm",
)  # suffixes of a database and SQLite's files next to it
_LOCK_TIMEOUT_S = 5.0  # while another process writes
_CREATION_TIMEOUT_S = 100.0  # while another process creates the store
_OUT_OF_DATE = "out-of-date database schema"
_NOT_SQLITE = ("file is not a database", "database disk image is malformed")
# Error messages of SQLAlchemy and alembic for a store whose tables do not match its version
_INCOMPLETE = ("already exists", "duplicate column", "no such table", "no such column",
              "has no column named", "Can't locate revision")  # fmt: skip


def path_of(uri: str) -> Path | None:
    """The absolute path of an SQLite store, with `~` expanded; None for any other store."""
    found = _URI.fullmatch(uri)
    if found is None or found[1].startswith((":memory:", "file:")):
        return None
    return Path(found[1]).expanduser().absolute()


def open_store(path: Path, connect: Callable[[str], MlflowClient]) -> MlflowClient:
    """Connect to the store in `path`; create it first if it does not exist.

    MLflow creates its schema by dozens of migrations. Two processes must not run them at once, and
    no process may see an incomplete store: one process creates a draft while the others wait.
    """
    from filelock import FileLock

    uri = f"sqlite:///{path}"
    if path.exists() and not os.access(path.parent, os.W_OK):
        return connect(uri)  # read-only: another user's store
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=_CREATION_TIMEOUT_S):
        if not path.exists():
            draft = path.with_name(f"{path.name}.partial")
            _remove(draft)  # left by a process that was killed
            try:
                connect(f"sqlite:///{draft}")
                draft.replace(path)
            finally:  # on a full disk, removing a failed draft frees space for the results
                _remove(draft)
        _check_opens(path)
        return connect(uri)


def _check_opens(path: Path) -> None:
    """Fail at once if the file cannot be opened, as MLflow would retry for over a minute.

    Raises:
        OSError, sqlite3.Error: it is a folder, not a database, locked or not readable.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    uri = f"{path.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT_S)) as database:
        database.execute("PRAGMA schema_version").fetchone()


def _remove(path: Path) -> None:
    for ending in _COMPANIONS:
        file = path.with_name(path.name + ending)
        if file.exists():
            os.truncate(file, 0)  # MLflow may hold it open, which would keep its disk space
            file.unlink()


def repair_message(path: Path, failure: str) -> str:
    """Say why the store is broken and which command repairs it; empty if it is not broken.

    `failure` is MLflow's error message.
    """
    if _OUT_OF_DATE in failure:
        uri = f"sqlite:///{path}"
        return (
            f"the MLflow store {path} was written by another version of MLflow. Upgrade its "
            f"schema: {_copy(path)} && {in_shell('mlflow', 'db', 'upgrade', uri)}. "
            f"If that fails, move it away: {_move(path)}"
        )
    if any(text in failure for text in _NOT_SQLITE):
        return (
            f"the MLflow store {path} is damaged or not an SQLite file. Move it away, and a new "
            f"one is created: {_move(path)}"
        )
    if path.exists() and any(text in failure for text in _INCOMPLETE):
        return (
            f"the MLflow store {path} is incomplete: several processes created it at once, or one "
            f"was killed meanwhile. It contains {_run_count(path)}. Move it away, and a new one is "
            f"created: {_move(path)}"
        )
    return ""


def _run_count(path: Path) -> str:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        return counted(database.execute("SELECT COUNT(*) FROM runs").fetchone()[0], "run")
    return "no readable run"


def _copy(path: Path) -> str:
    return in_shell("cp", str(path), f"{path}.old")


def _move(path: Path) -> str:
    """Commands to move the store with SQLite's files, as a journal left behind would be applied to
    the new store."""
    files = [path.with_name(path.name + ending) for ending in _COMPANIONS]
    return " && ".join(
        in_shell("mv", str(file), f"{file}.broken") for file in files if file.exists()
    )
