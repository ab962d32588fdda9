"""What jobs and the parent process exchange in a folder that both see.

Each cell has files named after its number: `.machine` when it begins, `.jsonl` with its events, and
at its end `.tar.gz` with its folder, or `.error` with the reason why it has none.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from crossbench.sweeps.cluster.remote import CellCall, measure, this_machine
from crossbench.system.command import os_error_message
from crossbench.system.files import atomic_write
from crossbench.system.stop_signals import stop_like_ctrl_c, stopped_by


@dataclass
class Spool:
    """The folder of the exchange, which only this user can read: configs may have credentials."""

    folder: Path
    _read: dict[int, int] = field(default_factory=dict)  # bytes of events, by cell

    def create(self) -> None:
        """Create the folder, and forget what an earlier run of the sweep has left there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()

    # In the job

    def begin(self, number: int, machine: str) -> None:
        self._write(number, ".machine", machine.encode())

    def add_event(self, number: int, line: str) -> None:
        with contextlib.suppress(OSError), self._path(number, ".jsonl").open("a") as file:
            file.write(line)

    def hand_back(self, number: int, archive: bytes) -> None:
        self._write(number, ".tar.gz", archive)

    def give_reason(self, number: int, why: str) -> None:
        self._write(number, ".error", why.encode())

    # In the parent process

    def machine(self, number: int) -> str | None:
        """Return the name of the machine that has begun to measure a cell."""
        found = self._content(number, ".machine")
        return None if found is None else found.decode()

    def new_events(self, number: int) -> list[str]:
        """Return the complete lines since the last call."""
        content = self._content(number, ".jsonl") or b""
        start = self._read.get(number, 0)
        end = content.rfind(b"\n") + 1
        self._read[number] = max(start, end)
        return content[start:end].decode().splitlines()

    def archive(self, number: int) -> bytes | None:
        """Return the folder of a cell that was handed back."""
        return self._content(number, ".tar.gz")

    def reason(self, number: int) -> str | None:
        """Return why a cell could not be measured."""
        found = self._content(number, ".error")
        return None if found is None else found.decode()

    def forget(self, number: int) -> None:
        """Remove the files of a cell, which has ended or is measured again."""
        self._read.pop(number, None)
        for path in self.folder.glob(f"{number}.*"):
            path.unlink(missing_ok=True)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number}{suffix}"

    def _write(self, number: int, suffix: str, content: bytes) -> None:
        with atomic_write(self._path(number, suffix)) as partial:
            partial.write_bytes(content)

    def _content(self, number: int, suffix: str) -> bytes | None:
        try:
            return self._path(number, suffix).read_bytes()
        except OSError:
            return None


def measure_all(calls: list[CellCall], spool: Spool) -> None:
    """Measure cells one after the other in this process, which is a job; see `remote.measure`."""
    with stop_like_ctrl_c():
        for call in calls:
            if stopped_by():
                return
            spool.begin(call.number, this_machine().host)

            def emit(line: str, number: int = call.number) -> None:
                spool.add_event(number, line)

            try:
                spool.hand_back(call.number, measure(call, emit))
            except OSError as error:
                spool.give_reason(call.number, os_error_message(error))
