"""The journal of a run: a file of its events, for the dashboard.

A file and not a pipe, so that a slow reader cannot block the cell.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from crossbench.events import Event, Recorded, decode, encode


class Journal(Protocol):
    """Keeps what happens, for whoever watches."""

    def write(self, event: Event, time_s: float | None = None) -> None:
        """Keep an event that happened at `time_s` (Unix seconds; None: now)."""
        ...


class NoJournal:
    """Nobody watches."""

    def write(self, event: Event, time_s: float | None = None) -> None:
        """Nothing to keep."""


class FileJournal:
    """Appends each event as a line; several processes may write to the same file.

    `cell` is the cell that the events belong to, None if they are the run's. A full disk costs the
    line, never the cell.
    """

    def __init__(self, path: Path, cell: int | None = None) -> None:
        self._path, self._cell = path, cell

    def write(self, event: Event, time_s: float | None = None) -> None:
        line = encode(event, time.time() if time_s is None else time_s, self._cell)
        with contextlib.suppress(OSError):
            # One write of the whole line, which the system appends in one piece
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)


class JournalReader:
    """Reads what was added to a journal since the last look; the file may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[Recorded]:
        """The events of the lines that are complete; lines that hold none are skipped."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except OSError:
            return
        whole = added.rfind(b"\n") + 1  # the rest is still being written
        self._offset += whole
        for line in added[:whole].splitlines():
            if (recorded := decode(line)) is not None:
                yield recorded
