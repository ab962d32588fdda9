"""A real cell beside busy loops, in a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from crossbench.results import Flag, Status, load_result
from crossbench.tracking.mlflow_format import cell_tags
from tests.helpers.commands import the_sweep

COLUMNS = 80
CELL = (
    *("backend=noop", "stop=fixed", "max_seconds=5", "quality=none", "warmup_requests=1"),
    *("tracker=none", "dashboard=none"),
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class BusyCores:
    """Keeps all cores busy with processes that are no part of a cell's run."""

    def __init__(self) -> None:
        self._loops: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the processes, unless they run already."""
        command = [sys.executable, "-c", "while True: pass"]
        if not self._loops:
            self._loops = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]

    def stop(self) -> None:
        for loop in self._loops:
            loop.kill()
            loop.wait()
        self._loops = []


def beside_busy_cores(command: list[str], environment: dict[str, str]) -> str:
    """Run a cell in a terminal, beside busy loops while it measures; return what it printed."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {**environment, "TERM": "xterm", "NO_COLOR": "1"}
    shown, busy = b"", BusyCores()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        try:
            while part := os.read(ours, 65536):
                if b"measuring" in part:
                    busy.start()
                if b"report" in part:
                    busy.stop()
                shown += part
        except OSError:  # Linux: the other end is closed
            pass
        finally:
            busy.stop()
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return ESCAPES.sub("", shown.decode())


def test_a_disturbed_cell_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "crossbench", *CELL, f"outputs_dir={tmp_path}"]
    shown = beside_busy_cores(command, environment)

    folder = the_sweep(tmp_path) / "0"
    result = load_result(folder)
    assert result.status is Status.FINISHED
    reason = result.flags[Flag.DISTURBED]
    found = re.fullmatch(r"other processes used ([\d.]+) of (\d+) CPU cores( for .*)?\.", reason)
    assert found
    assert float(found[1]) >= 0.3 * int(found[2])
    (warning,) = (text for text in result.warnings if text.startswith("Disturbed: "))
    assert reason in warning
    assert reason in (folder / "report.md").read_text("utf-8")
    assert "## Harness" in (folder / "report.md").read_text("utf-8")
    assert result.metrics["harness/cores_used_by_others"] > 0.3
    assert cell_tags(result)["crossbench.flags"] == "disturbed"

    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown)]
    told = [line for line in lines if "disturbed: other processes used" in line]
    assert len(told) == 1  # while it was measured, once
    progress = re.compile(r"disturbed, [\d,.]+ pairs/s, p50 [\d,.]+ ms$")
    bars = [line for line in lines if progress.search(line)]
    assert bars
    assert max(map(len, bars)) <= COLUMNS
