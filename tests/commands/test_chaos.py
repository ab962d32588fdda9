"""A minute of random faults; `python -m benchmarks.chaos` does ten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]


@pytest.mark.slow
def test_sweeps_survive_random_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--seconds", "60"],
        capture_output=True, text=True, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost: nothing" in done.stdout
