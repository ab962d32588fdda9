"""Start and stop cell processes, one of them ahead of time.

A cell process takes half a second to import its libraries. The process for the next cell does so
while the parent writes the report of the current one. It then waits until it reads its cell's
folder from standard input. No process is started while a cell is measured.
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
WAITING_LOG_FILE = ".next-cell.log"  # renamed to the log of the cell that the process gets


@contextlib.contextmanager
def cell_child(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield the process that measures the cell in `folder`: the waiting one, or a new one.

    It runs in its own process group, which is killed on exit.
    """
    child = waiting_child.take(folder) or _start(folder / LOG_FILE, str(folder))
    try:
        yield child
        child.wait()
    finally:
        _end(child)


def _environment() -> dict[str, str]:
    # Otherwise a library in the cell process could log into an outer MLflow run
    return {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}


def _start(log_file: Path, *arguments: str) -> subprocess.Popen[str]:
    with log_file.open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "crossbench.runner", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",  # `decode` skips lines that are not events
            process_group=0,
            env=_environment(),
        )


def _end(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # it never read its input
                pipe.close()


@dataclass(frozen=True)
class _Waiting:
    process: subprocess.Popen[str]
    log: Path
    environment: Mapping[str, str]
    directory: str


class WaitingChild:
    """Holds at most one process that waits for a cell. It ends when the parent process ends."""

    def __init__(self) -> None:
        self._waiting: _Waiting | None = None

    def start(self, home: Path) -> None:
        """Make sure that one process is waiting for the next cell of the run in `home`.

        Call this only while no cell is measured.
        """
        if self._waiting is not None:
            return
        log = home / WAITING_LOG_FILE
        with contextlib.suppress(OSError):  # the process is then started with the cell
            self._waiting = _Waiting(_start(log), log, _environment(), os.getcwd())  # noqa: PTH109

    def take(self, folder: Path) -> subprocess.Popen[str] | None:
        """Send the waiting process the folder of its cell, and return the process.

        Returns None if no process is waiting, if it has died, or if the environment or the current
        directory has changed since it started.
        """
        waiting = self._waiting
        if waiting is None:
            return None
        child = waiting.process
        unchanged = (_environment(), os.getcwd()) == (waiting.environment, waiting.directory)  # noqa: PTH109
        if not unchanged or child.poll() is not None or child.stdin is None:
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
        """End the waiting process, if there is one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            _end(waiting.process)
            waiting.log.unlink(missing_ok=True)


# Hydra calls the hooks of a sweep and its cells separately, so they share this object
waiting_child = WaitingChild()
