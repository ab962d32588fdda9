"""The parent's side of cells on other machines: it shows, stores and closes what they hand back."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape

from crossbench.errors import ResultError
from crossbench.events import FileKept, ServerListens, ServerStops, decode
from crossbench.results import (
    Failure,
    RunResult,
    Status,
    cell_folders,
    load_result,
    save_result,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.sweep_state import SweepState
from crossbench.sweeps.cell import interrupted_result
from crossbench.sweeps.cluster.archive import unpack
from crossbench.sweeps.objective import Objective
from crossbench.sweeps.open_cell import OpenCell
from crossbench.sweeps.services import Tracking, console
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.credentials import hide, texts_with_credentials
from crossbench.system.files import NotWritten
from crossbench.system.stop_signals import finish_first, stopped_by

# Of servers that the live page cannot reach, as they listen on another machine
_NOT_FOR_THE_PAGE = (ServerListens, ServerStops, FileKept)


class Reception:
    """Takes in the cells of a sweep, whose `configs` are given by number."""

    def __init__(
        self,
        home: Path,
        configs: Mapping[int, CellConfig],
        state: SweepState,
        tracking: Tracking,
        objective: Objective | None,
    ) -> None:
        self.configs = configs
        self.values: dict[int, float | None] = {}  # of the objective
        self._home, self._state, self._tracking = home, state, tracking
        self._objective = objective
        self._open: dict[int, OpenCell] = {}
        self._left = len(configs)

    def start(self, number: int, machine: str) -> None:
        """Note that `machine` begins to measure a cell, perhaps after another one was lost."""
        if number in self._open:
            self._open[number].show(machine)
        cell = self._opened(number, machine)
        console.tell(escape(f"{cell.shown}: measured on {machine}"))

    def events(self, number: int, lines: Iterable[str]) -> None:
        """Pass events of a cell on to the live page."""
        cell = self._open[number]
        for line in lines:
            recorded = decode(line)
            if recorded is not None and not isinstance(recorded.event, _NOT_FOR_THE_PAGE):
                cell.journal.write(recorded.event, recorded.time_s)

    def receive(self, number: int, archive: bytes) -> None:
        """Store the files of a cell that has ended, and close it.

        Raises:
            KeyboardInterrupt: after a stop signal; the cell is closed all the same.
        """
        folder = self._folder(number)
        try:
            unpack(archive, folder)
            result = load_result(folder)
            if result.failure == Failure.INTERRUPTED:
                result = interrupted_result(self.configs[number], folder)
        except (ResultError, tarfile.TarError) as error:
            self.fail(number, f"the machine handed back no result: {error}")
        except OSError as error:
            self._open.pop(number).end_unmeasured(error)
            unsaved_files.not_measured(folder, error)
        else:
            # One that was stopped while it started stays open for `interrupt`
            if not (stopped_by() and result.failure == Failure.CRASHED):
                self._close(number, result)

    def fail(self, number: int, why: str, failure: str = Failure.CRASHED) -> None:
        """Give a cell that no machine has measured a result that says why, and close it."""
        config = self.configs[number]
        result = RunResult(
            Status.FAILED,
            config,
            config.cell_id,
            error=hide(why, *texts_with_credentials(config.document)),
            failure=failure,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._opened(number)
        try:
            save_result(result, self._folder(number))
        except NotWritten as error:
            unsaved_files.keep(error)
        self._close(number, result)

    def interrupt(self) -> None:
        """Close the cells that were stopped before they handed anything back."""
        for number in list(self._open):
            self.fail(number, f"interrupted by {stopped_by() or 'Ctrl-C'}", Failure.INTERRUPTED)

    def tell(self, number: int, what: str) -> None:
        """Print what happens to a cell that is being measured."""
        console.print(escape(f"{self._opened(number).shown}: {what}"))

    def _close(self, number: int, result: RunResult) -> None:
        cell = self._open.pop(number)
        self._left -= 1
        with finish_first():
            cell.end(result)
            cell.close(result, last=not self._left)
            host = result.environment.get("host")
            cell.tell(result, self._left, f" ({host})" if host and not result.error else "")
        if self._objective is not None:
            others = [path for path in cell_folders(self._home) if path != self._folder(number)]
            self.values[number] = self._objective.counted(result, others)

    def _opened(self, number: int, machine: str | None = None) -> OpenCell:
        """Return a cell that has started; it is started if it has not."""
        if number not in self._open:
            folder = self._folder(number)
            with contextlib.suppress(OSError):  # what cannot be written is told when it ends
                folder.mkdir(parents=True, exist_ok=True)
            self._open[number] = OpenCell.start(
                self.configs[number], folder, self._home, self._state, number, self._tracking,
                machine,
            )  # fmt: skip
        return self._open[number]

    def _folder(self, number: int) -> Path:
        return self._home / str(number)
