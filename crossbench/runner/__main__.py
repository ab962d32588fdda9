"""The measured process: `python -m crossbench.runner CELL_DIR` measures the cell of CELL_DIR.

Without CELL_DIR it waits for one, as a line of JSON on its standard input. It reads config.yaml and
writes result.json and requests.parquet. It knows no MLflow, no plots and no web. Its standard
output is a pipe of events; it ends when its standard input closes, so a parent that is killed
leaves no orphan.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from crossbench.results import RunResult, save_quality, save_records, save_result
from crossbench.runner.cell import measure_cell, with_quality
from crossbench.runner.event_stream import EventStream
from crossbench.settings.plan import load_config
from crossbench.system.command import os_error_message


def _end_with_parent() -> None:
    """Kill this process group once standard input closes: then nobody waits for the result."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def main(folder: Path) -> None:
    events = EventStream.take_over_stdout()
    _end_with_parent()
    outcome = measure_cell(load_config(folder), events)
    # What was measured is safe before the reference takes memory and time of its own; a disk that
    # has no room for the single requests may have it for their numbers
    result = outcome.result
    if outcome.records:
        result = saved(result, lambda: save_records(outcome.records, folder))
    save_result(result, folder)
    if outcome.check_quality is not None:
        checked = outcome.check_quality()
        if checked.pairs:
            result = saved(result, lambda: save_quality(checked.pairs, folder))
        save_result(with_quality(result, checked), folder)


def saved(result: RunResult, save: Callable[[], Path]) -> RunResult:
    """The result, with a warning where a file beside it could not be written."""
    try:
        save()
    except OSError as error:
        warning = f"a file is missing: {os_error_message(error)}"
        return replace(result, warnings=[*result.warnings, warning])
    return result


def folder_from_stdin() -> Path:
    """The cell's folder, once the parent says it; the process ends where it never does."""
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: what follows is for `_end_with_parent`
        byte = os.read(0, 1)
        if not byte:
            sys.exit()
        line += byte
    return Path(json.loads(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else folder_from_stdin())
