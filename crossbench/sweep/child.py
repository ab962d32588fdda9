"""The measuring process as its parent holds it, and the next one, which imports before its turn.

A process takes half a second to import what it measures with. The next cell's does so while this
one's report is drawn; a process that waits measures nothing and is told of its cell on its standard
input. None is started while a cell measures.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LOG_FILE = "cell.log"
WAITING_LOG_FILE = ".next-cell.log"  # becomes the log of the cell that the process gets


@contextlib.contextmanager
def cell_child(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process that measures the cell in `folder`: the one that waits, or one started now.

    It is in a group of its own; the whole group is gone afterwards.
    """
    child = waiting_child.take(folder) or _start(folder / LOG_FILE, str(folder))
    try:
        yield child
        child.wait()
    finally:
        _end(child)


def _environment() -> dict[str, str]:
    # An outer MLflow run must not become the parent of what a library in the child logs
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}


def _start(log_file: Path, *arguments: str) -> subprocess.Popen[str]:
    with log_file.open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "crossbench.runner", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",  # `decode` then says what a line is worth
            process_group=0,
            env=_environment(),
        )


def _end(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # what it was told and never read
                pipe.close()


@dataclass(frozen=True)
class _Waiting:
    process: subprocess.Popen[str]
    log: Path
    environment: Mapping[str, str]
    directory: str


class WaitingChild:
    """At most one process that has no cell yet. It ends with its parent, however that ends."""

    def __init__(self) -> None:
        self._waiting: _Waiting | None = None

    def start(self, home: Path) -> None:
        """See that one waits for the next cell of the run in `home`; to be called while nothing
        measures."""
        if self._waiting is not None:
            return
        log = home / WAITING_LOG_FILE
        with contextlib.suppress(OSError):  # then that cell's process starts with the cell
            self._waiting = _Waiting(_start(log), log, _environment(), os.getcwd())  # noqa: PTH109

    def take(self, folder: Path) -> subprocess.Popen[str] | None:
        """The process that waits, now told to measure the cell in `folder`.

        None where there is none, it has died, or the cell's environment or directory is another.
        """
        waiting = self._waiting
        if waiting is None:
            return None
        child = waiting.process
        same = (_environment(), os.getcwd()) == (waiting.environment, waiting.directory)  # noqa: PTH109
        if not same or child.poll() is not None or child.stdin is None:
            self.close()
            return None
        try:
            waiting.log.replace(folder / LOG_FILE)
            child.stdin.write(json.dumps(str(folder)) + "\n")
            child.stdin.flush()
        except OSError:
            self.close()
            return None
        self._waiting = None
        return child

    def close(self) -> None:
        """End the process that waits, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            _end(waiting.process)
            waiting.log.unlink(missing_ok=True)


# Hydra calls a sweep's hooks and each of its cells on their own: what they share lies here
waiting_child = WaitingChild()
