"""Atomic file writes: a file is either complete or absent, even on a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  # how the names of temporary files end


class NotWritten(OSError):
    """A file could not be written. `path` is its path, `content` what it should have.

    `errno`, `strerror` and `filename` are those of the error.
    """

    def __init__(self, path: Path, content: bytes, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error), str(path))
        self.path, self.content = path, content


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` if the block succeeds.

    The temporary name contains the process id, so several processes may write the same file.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        NotWritten: it cannot be written; the error has its content.
    """
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise NotWritten(path, content, error) from error


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in a folder and those in it.

    Call this only while no process writes there.
    """
    for path in folder.rglob(f"*.[0-9]*{PARTIAL}"):
        with contextlib.suppress(OSError):
            path.unlink()
