"""The process for the next cell starts early; this must not change what a cell measures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from crossbench.results import RunResult, Status, load_result
from crossbench.settings.plan import save_config
from crossbench.sweeps.child import LOG_FILE, WAITING_LOG_FILE, cell_child, waiting_child
from tests.helpers.plans import config_of

NOOP = (
    "backend=noop",
    "requests=20",
    "warmup_requests=1",
    "warmup_max_seconds=0.2",
    "stop=fixed",
    "dataset.queries=4",
)


@pytest.fixture(autouse=True)
def no_process_waits() -> Iterator[None]:
    waiting_child.close()
    yield
    waiting_child.close()


def waiting_pid() -> int:
    (process,) = (
        child
        for child in psutil.Process().children()
        if child.cmdline()[-2:] == ["-m", "crossbench.runner"]
    )
    return process.pid


def measured(folder: Path) -> tuple[int, RunResult]:
    """Measure a noop cell; return the id of its process and its result."""
    folder.mkdir()
    save_config(config_of(*NOOP, f"cache_dir={folder.parent / 'cache'}"), folder)
    with cell_child(folder) as child:
        assert child.stdout is not None
        child.stdout.read()
    return child.pid, load_result(folder)


def always_given(result: RunResult) -> set[str]:
    """The metrics without the ends of intervals, which chance decides in so short a cell."""
    return {name for name in result.metrics if not name.endswith(("_low", "_high"))}


def test_a_waiting_process_measures_like_a_fresh_one(tmp_path: Path) -> None:
    measured(tmp_path / "first")  # it prepares the data set, which takes more memory
    _, fresh = measured(tmp_path / "fresh")
    waiting_child.start(tmp_path)
    expected = waiting_pid()
    waiting_child.start(tmp_path)  # one is already waiting
    pid, result = measured(tmp_path / "waited for")
    assert pid == expected
    assert result.status is fresh.status is Status.FINISHED
    assert always_given(result) == always_given(fresh)
    for moment in ("before_load", "after_load", "load_peak", "peak"):
        name = f"memory/rss_{moment}_mb"
        assert result.metrics[name] == pytest.approx(fresh.metrics[name], rel=0.05)
    assert (tmp_path / "waited for" / LOG_FILE).is_file()
    assert not (tmp_path / WAITING_LOG_FILE).exists()


@pytest.mark.slow
def test_a_cell_with_another_environment_gets_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting_child.start(tmp_path)
    waited = waiting_pid()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pid, result = measured(tmp_path / "cell")
    assert pid != waited
    assert not psutil.pid_exists(waited)
    assert result.status is Status.FINISHED


def test_a_dead_waiting_process_does_not_fail_the_cell(tmp_path: Path) -> None:
    waiting_child.start(tmp_path)
    waited = waiting_pid()
    os.kill(waited, signal.SIGKILL)
    while psutil.Process(waited).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    pid, result = measured(tmp_path / "cell")
    assert pid != waited
    assert result.status is Status.FINISHED


def test_a_waiting_process_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from crossbench.sweeps.child import *;"
        "waiting_child.start(Path(sys.argv[1])); print('started', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        (waits,) = psutil.Process(parent.pid).children()
        parent.kill()
    assert not psutil.wait_procs([waits], timeout=20)[1]
