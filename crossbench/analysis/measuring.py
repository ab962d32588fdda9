"""Measure from Python or a notebook: the commands of the terminal, with their results as frames."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from crossbench.analysis.frames import load_sweep
from crossbench.errors import MeasuringFailed
from crossbench.settings.places import outputs_dir

_LAST_LINES = 10  # of the output, for the error message


def run(overrides: Sequence[str] = ()) -> pd.Series:
    """Measure one cell, as `python -m crossbench OVERRIDES` does; return its row of `load_sweep`.

    A cell that failed is a row, too: see its `status` and `error`. Progress goes to sys.stderr.

    Raises:
        MeasuringFailed: nothing was measured; the message is that of the command.
    """
    return _measured([], overrides, "hydra.run.dir", "/0").iloc[0]


def sweep(overrides: Sequence[str]) -> pd.DataFrame:
    """Measure a sweep, as `python -m crossbench -m OVERRIDES` does; return `load_sweep` of it.

    The folder of the sweep, which has `report.md`, is the parent of the column `folder`. Progress
    goes to sys.stderr.

    Raises:
        MeasuringFailed: nothing was measured; the message is that of the command.
    """
    return _measured(["-m"], overrides, "hydra.sweep.dir", "")


def _measured(
    options: Sequence[str], overrides: Sequence[str], key: str, below: str
) -> pd.DataFrame:
    """Run the command in a new folder, whose path is the value of `key` and `below`."""
    values = dict(word.split("=", 1) for word in overrides if "=" in word)
    if key in values:
        folder, place = Path(values[key]), []
    else:
        name = f"{datetime.now(UTC).astimezone():%Y-%m-%d_%H-%M-%S}_{uuid.uuid4().hex[:6]}"
        outputs = values.get("outputs_dir", "").strip("'\"")
        folder = (Path(outputs).expanduser() if outputs else outputs_dir()) / f"{name}{below}"
        place = [f"{key}='{folder.resolve()}'"]
    status, lines = _run([sys.executable, "-m", "crossbench", *options, *overrides, *place])
    if not folder.is_dir():
        text = "\n".join(lines) or f"the command ended with status {status}"
        found = re.search(r"^crossbench: (.*)", text, re.DOTALL | re.MULTILINE)
        raise MeasuringFailed(found[1] if found else text)
    return load_sweep(folder)


def _run(command: Sequence[str]) -> tuple[int, Sequence[str]]:
    """Run a command; pass its output on; return its status and the last lines.

    On KeyboardInterrupt (a notebook's kernel is interrupted, and only it) the command ends too: it
    keeps what it has measured.
    """
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        interrupted = False
        while True:
            try:
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    print(line, end="", file=sys.stderr, flush=True)
                break
            except KeyboardInterrupt:
                process.send_signal(signal.SIGKILL if interrupted else signal.SIGINT)
                interrupted = True
        process.wait()
    if interrupted:
        raise KeyboardInterrupt
    return process.returncode, tuple(lines)
