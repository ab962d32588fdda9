"""The cell process: `python -m crossbench.runner CELL_DIR` measures the cell of CELL_DIR.

Without CELL_DIR it reads the folder from standard input, as one line of JSON. It reads config.yaml
and writes result.json and the parquet files of raw data. Its standard output is a pipe of events.
It ends when its standard input closes, so that it never outlives its parent process.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from crossbench.events import FileKept
from crossbench.measure.scraped import save_scraped
from crossbench.quality.earlier import earlier_check
from crossbench.results import save_quality, save_queries, save_records, save_result
from crossbench.runner.cell import measure_cell, with_quality
from crossbench.runner.event_stream import EventStream
from crossbench.runner.remote_match import swept_keys_of
from crossbench.settings.plan import load_config
from crossbench.system.files import NotWritten
from crossbench.system.stack_dump import dump_on_signal


def _end_with_parent() -> None:
    """Kill this process group when standard input closes, because the parent process has ended."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def _lock_log() -> None:
    """Lock the log (stderr) until this process and its children have ended.

    The parent process may be killed before them; `sweep.resume` waits for the lock.
    """
    with contextlib.suppress(OSError):  # not a file, or a file system without locks
        fcntl.flock(2, fcntl.LOCK_SH | fcntl.LOCK_NB)


def main(folder: Path) -> None:
    """Measure the cell in `folder` and write its result."""
    _lock_log()
    dump_on_signal()
    events = EventStream.take_over_stdout()
    _end_with_parent()
    config = load_config(folder)
    outcome = measure_cell(config, events, earlier_check(folder, config), swept_keys_of(folder))
    files = CellFiles(events)
    # Save the measurement before the reference model takes memory and time
    if outcome.records:
        files.save(lambda: save_records(outcome.records, folder))
    if (schedule := outcome.schedule) is not None:
        files.save(lambda: schedule.save(folder))
    if outcome.scraped:
        files.save(lambda: save_scraped(outcome.scraped, folder))
    files.save(lambda: save_result(outcome.result, folder))
    if outcome.check_quality is not None:
        checked = outcome.check_quality()
        if checked.pairs:
            files.save(lambda: save_quality(checked.pairs, folder))
            files.save(lambda: save_queries(checked.queries, folder))
        files.save(lambda: save_result(with_quality(outcome.result, checked), folder))


class CellFiles:
    """Saves files. The parent process gets those that cannot be written, and tries again later."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._kept: set[str] = set()  # names of files that the parent process has

    def save(self, save: Callable[[], Path]) -> None:
        """Call `save`, which writes a file and returns its path."""
        try:
            name = save().name
        except NotWritten as error:
            content = base64.b64encode(error.content).decode("ascii")
            self._events.send(FileKept(error.path.name, content, str(error.strerror)))
            self._kept.add(error.path.name)
        else:
            if name in self._kept:
                self._events.send(FileKept(name, None, ""))
                self._kept.remove(name)


def folder_from_stdin() -> Path:
    """Read the cell's folder from standard input; exit if the input closes first."""
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: `_end_with_parent` reads the rest
        byte = os.read(0, 1)
        if not byte:
            sys.exit()
        line += byte
    return Path(json.loads(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else folder_from_stdin())
