"""A sweep whose terminal is closed ends as with Ctrl-C; it can no longer print."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

SWEEP = (
    "-m", "batch=1,2", "backend=noop", "requests=100000000", "stop=fixed", "tracker=none",
    "dashboard=none", "quality=none",
)  # fmt: skip


@pytest.mark.slow
def test_a_closed_terminal_ends_the_sweep_with_its_report(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "crossbench", *SWEEP, f"outputs_dir={tmp_path}"]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, words)
    seen = b""
    while b"measuring" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert len(list(tmp_path.glob("*/report.md"))) == 1
