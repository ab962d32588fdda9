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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from crossbench.events import Event, encode
from crossbench.results import Failure, RunResult, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import drop_secrets, save_config
from crossbench.sweeps.cell import interrupted_result, run_cell
from crossbench.sweeps.cluster.archive import pack
from crossbench.sweeps.cluster.carried import Carried, Content, find_all, with_paths
from crossbench.sweeps.progress import NoProgress
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.facts import file_text

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_WAIT_S = 5.0  # for an event, so that a lost connection is noticed
_GATHER_S = 0.2  # events that come together travel together


@dataclass(frozen=True, slots=True)
class CellCall:
    """A cell to be measured: its number in the sweep and its config.

    `machine` is the name that the cluster has for the machine; None: the host's own. `files` are
    what the config names by path, and `contents` those that the machine lacks, by digest.
    """

    number: int
    config: CellConfig
    machine: str | None = None
    files: tuple[Carried, ...] = ()
    contents: Mapping[str, Content] = field(default_factory=dict)


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


def measure(
    call: CellCall, emit: Callable[[str], None], get: Callable[[Any], bytes] = bytes
) -> bytes:
    """Measure a cell in a temporary folder, and return the files of that folder.

    `emit` gets the events of the cell as lines, and `get` returns a part of a carried file. After
    SIGINT, or if the cell process is terminated, the result is that of an interrupted cell.

    Raises:
        MissingFiles: this machine lacks files that the config names, and nothing was measured.
        OSError: the temporary folder, or a carried file, cannot be written.
    """
    cache_dir = Path(str(call.config.value("cache_dir"))).expanduser()
    places = find_all(call.files, call.contents, cache_dir, get)
    config = with_paths(call.config, places)
    notes = _take_normal_priority()
    with tempfile.TemporaryDirectory(
        prefix="crossbench-cell-", ignore_cleanup_errors=True
    ) as place:
        folder = Path(place) / str(call.number)
        try:
            result = run_cell(config, folder, NoProgress(), _Lines(emit, call.number))
        except KeyboardInterrupt:
            result = interrupted_result(config, folder)
        unsaved_files.write()
        save_result(_of_this_machine(result, call, notes), folder)
        save_config(call.config, folder)
        drop_secrets(folder)
        return pack(folder)


class _Lines:
    """A journal that passes each event on as a line."""

    def __init__(self, emit: Callable[[str], None], cell: int) -> None:
        self._emit, self._cell = emit, cell

    def write(self, event: Event, time_s: float | None = None) -> None:
        self._emit(encode(event, time.time() if time_s is None else time_s, self._cell))


def _of_this_machine(result: RunResult, call: CellCall, notes: list[str]) -> RunResult:
    """The result with the name of the machine, also in an error, which may be of this one alone.

    Its config is that of the call, without the paths of this machine.
    """
    name = call.machine or platform.node()
    environment = {**result.environment, "host": name}
    error = result.error
    if error and result.failure != Failure.INTERRUPTED:
        error = f"on {name}: {error}"
    return replace(
        result,
        config=call.config,
        cell_id=call.config.cell_id,
        environment=environment,
        error=error,
        warnings=[*result.warnings, *notes],
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
        self._lines: list[str] = []  # events of the cell `_number` that were not fetched yet
        self._number: int | None = None
        self._changed = threading.Condition()

    def measure(self, call: CellCall) -> bytes:
        """See `measure`."""
        import ray

        _undo_thread_limit()
        with self._changed:
            self._number, self._lines = call.number, []
        try:
            return measure(call, self._emit, ray.get)
        finally:
            with self._changed:
                self._number = None
                self._changed.notify_all()

    def events(self, number: int) -> list[str]:
        """Return the events of a cell since the last call; wait for one, at most some seconds.

        It waits no longer than the cell is measured.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._number != number, _MOST_WAIT_S)
            self._changed.wait_for(lambda: self._number != number, _GATHER_S)
            if self._number not in (number, None):  # another cell has begun
                return []
            lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        """Let the cell that is measured end with what it has, and return when it has ended."""
        told = set[psutil.Process]()  # a second signal would end its process at once
        with self._changed:
            while self._number is not None:
                for child in {*psutil.Process().children()} - told:
                    child.terminate()
                    told.add(child)
                self._changed.wait(_GATHER_S)  # its process may still be about to start

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
