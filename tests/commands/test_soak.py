"""Two minutes of the soak benchmark; half an hour shows growth more exactly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.places import REPO


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mixed_load_and_killed_workers_lose_nothing_and_leave_memory_flat() -> None:
    pytest.importorskip("playwright")
    options = ["--minutes", "2", "--growth", "5", "--kill-every", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *options],
        cwd=REPO, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, mixed up 0, unexplained 0" in done.stdout
