"""A server process as users start it: `python -m crossbench.serve`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.race import REPO

END_S = 60.0


@dataclass(frozen=True)
class Served:
    """A running server. `log` has all that it wrote; `dashboard` is the page's URL, if any."""

    process: psutil.Popen
    address: str
    dashboard: str | None
    log: Path

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = self.process.children(recursive=True)
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes, which pool=processes has."""
        return [
            child
            for child in self.children()
            if any("worker_process" in word for word in _command(child))
        ]

    def tracebacks(self) -> list[str]:
        """Return the last lines of the errors that the server did not expect."""
        text = self.log.read_text("utf-8", "replace")
        return re.findall(r"^Traceback .*\n(?:[ ].*\n|\n)*(.*)", text, re.MULTILINE)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextlib.contextmanager
def served(
    overrides: Sequence[str], folder: Path | None = None, checkout: Path = REPO
) -> Iterator[Served]:
    """Start a server on a free port, wait until it listens, and end it with SIGTERM.

    `checkout` has the code that runs.

    Raises:
        SystemExit: it did not start, did not end, or did not end with status 0.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = folder / "server.log"
        command = [sys.executable, "-u", "-m", "crossbench.serve", "server.port=0", *overrides]
        with log.open("wb") as output:
            process = psutil.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=checkout,  # `-m` looks there first
                env={**os.environ, "PYTHONPATH": str(checkout)},
            )
        try:
            yield Served(process, _wait(process, log, r"listening on (\S+)"), _page(log), log)
            process.send_signal(signal.SIGTERM)
            status = process.wait(END_S)
        except psutil.TimeoutExpired:
            sys.exit(f"the server did not end within {END_S:g} s of SIGTERM")
        finally:
            if process.is_running():
                process.kill()
        if status:
            sys.exit(f"the server ended with status {status}: {log.read_text('utf-8', 'replace')}")


def _page(log: Path) -> str | None:
    found = re.search(r"dashboard: (http\S+)", log.read_text("utf-8", "replace"))
    return found[1] if found else None


def _wait(process: psutil.Popen, log: Path, pattern: str) -> str:
    while True:
        text = log.read_text("utf-8", "replace")
        if found := re.search(pattern, text):
            return found[1]
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(0.1)
            sys.exit(f"the server did not start: {text}")
