"""The parent's side of the dashboard: starts its process, waits for its URL and ends it.

It imports no web framework, as the cell process reads these settings too.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from crossbench.errors import DashboardError
from crossbench.events import DashboardListens, DashboardRefused, decode

JOURNAL_FILE = "events.jsonl"
LOG_FILE = "dashboard.log"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 6.0


class Dashboard(Protocol):
    """A dashboard: call `start`, then `ready` before measuring, and `close` at the end.

    It ends by itself when the process that started it ends.
    """

    name: str
    note: str  # a message for the user once it is ready; may be empty

    def start(self, journal: Path, *, temporary: bool = False) -> None:
        """Start to show the events of `journal`; returns at once.

        `temporary`: the folder of the journal is deleted when this process ends, also if it is
        killed.
        """
        ...

    def ready(self) -> str | None:
        """Wait until the page is available; return its URL, or None without a dashboard.

        Raises:
            DashboardError: the dashboard did not start.
        """
        ...

    def close(self) -> None: ...


@dataclass
class NoDashboard:
    """No dashboard."""

    name: str
    note: str = field(default="", init=False)

    def start(self, journal: Path, *, temporary: bool = False) -> None:
        """Do nothing."""

    def ready(self) -> str | None:
        return None

    def close(self) -> None:
        """Do nothing."""


@dataclass
class WebDashboard:
    """A page on `http://host:port`, or on the next free port if `port` is taken."""

    name: str
    host: str
    port: int
    screenshot: bool
    token: str | None = field(repr=False)
    max_pages: int
    note: str = field(default="", init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _log: Path = field(default=Path(), init=False)

    def start(self, journal: Path, *, temporary: bool = False) -> None:
        settings = {
            "host": self.host,
            "port": self.port,
            "token": self.token,
            "max_pages": self.max_pages,
            "journal": str(journal),
            "temporary": temporary,
        }
        self._log = journal.with_name(LOG_FILE)
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "crossbench.dashboard.child"],
                stdin=subprocess.PIPE,  # closes when this process ends, however it ends
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                process_group=0,  # Ctrl-C ends the cell; the page stays and shows how it ended
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which `ready` reports
            self._process.stdin.write(json.dumps(settings) + "\n")
            self._process.stdin.flush()

    def ready(self) -> str | None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        readable = select.select([process.stdout], [], [], START_TIMEOUT_S)[0]
        line = process.stdout.readline() if readable else ""
        recorded = decode(line)
        match recorded.event if recorded else None:
            case DashboardListens(url, note):
                self.note = note
                return url
            case DashboardRefused(message):
                self.close()
                raise DashboardError(message)
            case _:
                raise DashboardError(f"the dashboard did not start: {self._start_failure()}")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        with contextlib.suppress(FileNotFoundError):  # it was in a temporary folder
            if self._log.stat().st_size == 0:
                self._log.unlink()

    def _start_failure(self) -> str:
        process = self._process
        assert process is not None
        try:
            status = process.wait(1.0)
        except subprocess.TimeoutExpired:
            reason = f"no answer within {START_TIMEOUT_S:g} s"
        else:
            lines = self._log.read_text("utf-8", errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"its process ended with status {status}"
        self.close()
        return reason
