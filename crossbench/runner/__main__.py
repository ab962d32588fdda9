"""The cell process: `python -m crossbench.runner CELL_DIR` measures the cell of CELL_DIR.

Without CELL_DIR it reads the folder from standard input, as one line of JSON. It reads config.yaml
and writes result.json and the parquet files of raw data. Its standard output is a pipe of events.
It ends when its standard input closes, so that it never outlives its parent process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crossbench.quality.earlier import earlier_check
from crossbench.results import RunResult, save_quality, save_queries, save_records, save_result
from crossbench.runner.cell import measure_cell, with_quality
from crossbench.runner.event_stream import EventStream
from crossbench.settings.plan import load_config
from crossbench.system.command import os_error_message
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
    outcome = measure_cell(config, events, earlier_check(folder, config))
    # Save the measurement before the reference model takes memory and time. The result is written
    # even if the disk has no space for the request records.
    result = outcome.result
    if outcome.records:
        result = saved(result, lambda: save_records(outcome.records, folder))
    if (schedule := outcome.schedule) is not None:
        result = saved(result, lambda: schedule.save(folder))
    save_result(result, folder)
    if outcome.check_quality is not None:
        checked = outcome.check_quality()
        if checked.pairs:
            result = saved(result, lambda: save_quality(checked.pairs, folder))
            result = saved(result, lambda: save_queries(checked.queries, folder))
        save_result(with_quality(result, checked), folder)


def saved(result: RunResult, save: Callable[[], Path]) -> RunResult:
    """Call `save`; return the result, with a warning if the file could not be written."""
    try:
        save()
    except OSError as error:
        warning = f"a file is missing: {os_error_message(error)}"
        return replace(result, warnings=[*result.warnings, warning])
    return result


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
