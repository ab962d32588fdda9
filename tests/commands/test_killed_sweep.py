"""A sweep that is killed leaves no MLflow run that seems to run for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import crossbench, read_until, runs, start, the_sweep

QUICK = (
    "backend=noop", "stop=fixed", "warmup_requests=1", "warmup_max_seconds=0.2", "quality=none",
)  # fmt: skip


def status_of(outputs: Path) -> dict[str, str]:
    return {run.info.run_name: run.info.status for run in runs(outputs)}


@pytest.mark.slow
def test_the_next_start_ends_the_runs_of_a_killed_sweep(
    outputs: Path, environment: dict[str, str]
) -> None:
    where = {"outputs": outputs, "environment": environment}
    process = start("-m", *QUICK, "max_seconds=5", "batch=2,4,8", **where)
    read_until(process, "cell 2/3 batch=4: measuring")
    process.kill()
    process.communicate()
    sweep, first, second = f"batch ({the_sweep(outputs).name})", "batch=2", "batch=4"
    assert status_of(outputs) == {sweep: "RUNNING", first: "FINISHED", second: "RUNNING"}
    done = crossbench(*QUICK, "requests=20", "batch=16", **where)
    assert done.returncode == 0, done.stderr
    found = status_of(outputs)
    assert (found[sweep], found[first], found[second]) == ("KILLED", "FINISHED", "KILLED")
    assert "RUNNING" not in found.values()
