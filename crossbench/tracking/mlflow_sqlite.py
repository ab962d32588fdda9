"""MLflow's embedded store, an SQLite file: made once and whole, and what mends a broken one."""

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
_COMPANIONS = ("", "-journal", "-wal", "-shm")  # SQLite's own files beside a database
_PATIENCE_S = 5.0  # for another process that writes
_OUT_OF_DATE = "out-of-date database schema"
_NOT_SQLITE = ("file is not a database", "database disk image is malformed")
# What SQLAlchemy and alembic say of a store whose tables are not those that its version has
_HALF_MADE = ("already exists", "duplicate column", "no such table", "no such column",
              "has no column named", "Can't locate revision")  # fmt: skip


def path_of(uri: str) -> Path | None:
    """The file of an SQLite store, absolute, `~` expanded; None for any other store."""
    found = _URI.fullmatch(uri)
    if found is None or found[1].startswith((":memory:", "file:")):
        return None
    return Path(found[1]).expanduser().absolute()


def open_store(path: Path, connect: Callable[[str], MlflowClient]) -> MlflowClient:
    """Connect to the store in `path`, and make it first where there is none.

    MLflow brings a new file to its schema by dozens of migrations, which two processes must not do
    at once and which nobody may see half done: one process makes a draft, the others wait.
    """
    from filelock import FileLock

    uri = f"sqlite:///{path}"
    if path.exists() and not os.access(path.parent, os.W_OK):
        return connect(uri)  # somebody else's, to be read
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            draft = path.with_name(f"{path.name}.partial")
            _remove(draft)  # of a process that was ended while it made one
            try:
                connect(f"sqlite:///{draft}")
                draft.replace(path)
            finally:  # on a full disk, the results need the place of a draft that failed
                _remove(draft)
        _check_opens(path)
        return connect(uri)


def _check_opens(path: Path) -> None:
    """Fail at once where the file cannot be opened: MLflow would try for over a minute.

    Raises:
        OSError, sqlite3.Error: it is a folder, no database, locked, or may not be read.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    uri = f"{path.as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S)) as database:
        database.execute("PRAGMA schema_version").fetchone()


def _remove(path: Path) -> None:
    for ending in _COMPANIONS:
        file = path.with_name(path.name + ending)
        if file.exists():
            os.truncate(file, 0)  # MLflow may hold it open, which would keep its room on the disk
            file.unlink()


def what_mends(path: Path, failure: str) -> str:
    """The sentence on a store that is broken: why, and the command that mends it.

    `failure` is what MLflow said. Empty: the store is not broken, something else failed.
    """
    if _OUT_OF_DATE in failure:
        uri = f"sqlite:///{path}"
        return (
            f"the MLflow store {path} was written by another version of MLflow. Bring it up to "
            f"this one's schema: {_copy(path)} && {in_shell('mlflow', 'db', 'upgrade', uri)}. "
            f"Where that fails, move it away: {_move(path)}"
        )
    if any(words in failure for words in _NOT_SQLITE):
        return (
            f"the MLflow store {path} is damaged or no SQLite file. Move it away, and a new one is "
            f"made: {_move(path)}"
        )
    if path.exists() and any(words in failure for words in _HALF_MADE):
        return (
            f"the MLflow store {path} is half made, as when several processes make it at once or "
            f"one is ended meanwhile; it holds {_runs(path)}. Move it away, and a new one is made: "
            f"{_move(path)}"
        )
    return ""


def _runs(path: Path) -> str:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        return counted(database.execute("SELECT COUNT(*) FROM runs").fetchone()[0], "run")
    return "no run that can be read"


def _copy(path: Path) -> str:
    return in_shell("cp", str(path), f"{path}.old")


def _move(path: Path) -> str:
    """With SQLite's own files: a journal that stays would be played into the new store."""
    there = [path.with_name(path.name + ending) for ending in _COMPANIONS]
    return " && ".join(
        in_shell("mv", str(file), f"{file}.broken") for file in there if file.exists()
    )
