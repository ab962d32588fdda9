"""What runs on another machine: it measures a cell and hands its folder back.

Nothing of the sweep's folder is needed there. The parent process writes the report and logs to
MLflow.
"""

from __future__ import annotations

import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from crossbench.events import Event, encode
from crossbench.results import Failure, RunResult, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.cell import interrupted_result, run_cell
from crossbench.sweeps.cluster.archive import pack
from crossbench.sweeps.progress import NoProgress
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.facts import file_text

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_WAIT_S = 5.0  # for an event, so that a lost connection is noticed
_GATHER_S = 0.2  # events that come together travel together


@dataclass(frozen=True, slots=True)
class CellCall:
    """A cell to be measured: its number in the sweep and its config.

    `machine` is the name that the cluster has for the machine; None: the host's own.
    """

    number: int
    config: CellConfig
    machine: str | None = None


@dataclass(frozen=True, slots=True)
class MachineId:
    """The name of a machine, and what is the same for all processes on it until it restarts.

    Containers of one host count as one machine, because they share its cores.
    """

    host: str
    boot: str


def this_machine() -> MachineId:
    """Return the identity of the machine that this process runs on."""
    return MachineId(platform.node(), file_text(_BOOT_ID).strip() or platform.node())


def measure(call: CellCall, emit: Callable[[str], None]) -> bytes:
    """Measure a cell in a temporary folder, and return the files of that folder.

    `emit` gets the events of the cell as lines. After SIGINT, or if the cell process is terminated,
    the result is that of an interrupted cell.

    Raises:
        OSError: the temporary folder cannot be written.
    """
    notes = _take_normal_priority()
    with tempfile.TemporaryDirectory(
        prefix="crossbench-cell-", ignore_cleanup_errors=True
    ) as place:
        folder = Path(place) / str(call.number)
        try:
            result = run_cell(call.config, folder, NoProgress(), _Lines(emit, call.number))
        except KeyboardInterrupt:
            result = interrupted_result(call.config, folder)
        unsaved_files.write()
        save_result(_of_this_machine(result, call.machine, notes), folder)
        return pack(folder)


class _Lines:
    """A journal that passes each event on as a line."""

    def __init__(self, emit: Callable[[str], None], cell: int) -> None:
        self._emit, self._cell = emit, cell

    def write(self, event: Event, time_s: float | None = None) -> None:
        self._emit(encode(event, time.time() if time_s is None else time_s, self._cell))


def _of_this_machine(result: RunResult, name: str | None, notes: list[str]) -> RunResult:
    """The result with the name of the machine, also in an error, which may be of this one alone."""
    name = name or platform.node()
    environment = {**result.environment, "host": name}
    error = result.error
    if error and result.failure != Failure.INTERRUPTED:
        error = f"on {name}: {error}"
    return replace(
        result, environment=environment, error=error, warnings=[*result.warnings, *notes]
    )


def _take_normal_priority() -> list[str]:
    """Undo the low priority that a cluster gives its workers; return a note if that fails."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice <= 0:
        return []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except PermissionError:
        return [
            f"measured at niceness {nice}, so that any other work on the machine goes first: start "
            "Ray there with RAY_worker_niceness=0"
        ]
    return []


class CellRunner:
    """Measures cells, one at a time, as an actor of Ray with several threads."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()

    def machine(self) -> MachineId:
        """Return the identity of this machine."""
        return this_machine()

    def measure(self, call: CellCall) -> bytes:
        """See `measure`."""
        _undo_thread_limit()
        return measure(call, self._emit)

    def events(self) -> list[str]:
        """Return the events since the last call; wait for one, at most some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines, _MOST_WAIT_S)
        time.sleep(_GATHER_S)
        with self._changed:
            lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        """Let the cell that is measured end with what it has."""
        for child in psutil.Process().children():
            child.terminate()

    def _emit(self, line: str) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()


def _undo_thread_limit() -> None:
    """Drop OMP_NUM_THREADS if Ray has set it for this worker: a cell has the whole machine."""
    name, parent = "OMP_NUM_THREADS", psutil.Process().parent()
    try:
        was_set = parent is None or name in parent.environ()
    except psutil.Error:
        return
    if not was_set:
        os.environ.pop(name, None)
