"""A sweep with `until_decided` ends once every cell is told from the baseline."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from crossbench.report.sweep import read_runs
from crossbench.settings.stored_plan import read_plan

pytestmark = pytest.mark.slow

SWEEP = (
    "-m", "max_repeats=5", "backend=noop", "backend.service_us_per_pair=500,5000",
    "backend.service_kind=sleep", "batch=4", "requests=20", "stop=fixed", "warmup_requests=1",
    "warmup_max_seconds=0.1", "dataset.queries=4", "quality=none", "dashboard=none", "tracker=none",
)  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_no_more_blocks_than_needed(tmp_path: Path) -> None:
    ended = run(*SWEEP, "until_decided=true", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert ended.returncode == 0, ended.stderr
    found = re.search(r"after (\d) blocks, every cell is decided", ended.stderr)
    assert found is not None, ended.stderr
    blocks = int(found[1])
    plan = read_plan(tmp_path / "sweep")
    assert plan is not None
    assert len(read_runs(tmp_path / "sweep")) == len(plan.runs) == 2 * blocks < 10
    again = run("-m", f"resume={tmp_path / 'sweep'}")
    assert "0 cells of" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "until_decided=true", "repeats=3"], "both say how many blocks"),
        (["-m", "until_decided=true"], "this sweep has a single cell"),
        (["-m", "until_decided=true", "max_repeats=2"], "max_repeats must be a whole number, 3 or"),
        (["-m", "until_decided=true", "repeat=1,2"], "leave one of them out"),
        (["until_decided=true"], "until_decided=true needs -m"),
        (["sweep_name=mine"], "sweep_name=mine needs -m"),
        (["-m", "sweep_name=a,b"], "sweep_name"),
        (["-m", "sweep_name=''"], "one line of 1 to 200 characters, got ''"),
        (["-m", f"sweep_name={'x' * 201}"], "one line of 1 to 200 characters, got 'xxx"),
    ],
)
def test_settings_of_a_sweep_that_make_no_sense_are_refused(
    arguments: list[str], message: str
) -> None:
    ended = run(*arguments, "backend=noop")
    assert ended.returncode == 1
    assert message in " ".join(ended.stderr.split())
