"""Run single cells as users do, for benchmarks that compare cells."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.race import REPO
from crossbench.results import RunResult, load_result
from crossbench.wording import exit_description

# Neither services nor a check of the ranking, and a fixed length
BARE = ("tracker=none", "dashboard=none", "quality=none", "stop=fixed")


def run_cell(overrides: Sequence[str]) -> RunResult:
    """Run `python -m crossbench OVERRIDES` with BARE and return the result of its cell.

    Raises:
        SystemExit: the cell failed.
    """
    with tempfile.TemporaryDirectory(prefix="crossbench-cell-") as name:
        folder = Path(name) / "run" / "0"
        words = [*BARE, *overrides, f"outputs_dir={name}", f"hydra.run.dir={folder}"]
        done = subprocess.run(
            [sys.executable, "-m", "crossbench", *words],
            env={**os.environ, "PYTHONPATH": str(REPO)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            command = f"python -m crossbench {' '.join(words)}"
            sys.exit(f"{command} {exit_description(done.returncode)}: {done.stderr}")
        return load_result(folder)
