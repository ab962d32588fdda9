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
    """Records events for the dashboard."""

    def write(self, event: Event, time_s: float | None = None) -> None:
        """Record an event that happened at `time_s` (Unix seconds; None: now)."""
        ...


class NoJournal:
    """Records nothing, as there is no dashboard."""

    def write(self, event: Event, time_s: float | None = None) -> None:
        """Do nothing."""


class FileJournal:
    """Appends each event as a line; several processes may write to the same file.

    `cell` is the number of the cell that the events belong to, None for events of the whole run. If
    the disk is full, the line is lost but the cell continues.
    """

    def __init__(self, path: Path, cell: int | None = None) -> None:
        self._path, self._cell = path, cell

    def write(self, event: Event, time_s: float | None = None) -> None:
        line = encode(event, time.time() if time_s is None else time_s, self._cell)
        with contextlib.suppress(OSError):
            # The system appends a single write atomically
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)


class JournalReader:
    """Reads the lines added to a journal since the last call; the file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[Recorded]:
        """Yield the events of the complete new lines; lines without a valid event are skipped."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except OSError:
            return
        complete = added.rfind(b"\n") + 1  # the rest is still being written
        self._offset += complete
        for line in added[:complete].splitlines():
            if (recorded := decode(line)) is not None:
                yield recorded
