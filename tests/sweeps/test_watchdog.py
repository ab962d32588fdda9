"""A cell that hangs is ended, and its error says where it hung."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from crossbench.dashboard.journal import NoJournal
from crossbench.events import ProgressMade
from crossbench.results import Failure, RunResult, Status, load_result, save_result
from crossbench.sweeps.cell import run_cell
from crossbench.sweeps.watchdog import SLACK_S, TimeLimits, place_of_hang, time_limits
from tests.helpers.plans import config_of, plan_of

HANG = (
    "backend=noop", "backend.service_us_per_pair=900000000", "backend.service_kind=busy",
    "batch=1", "cell_timeout_s=4", "quality=none", "tracker=none", "dashboard=none",
)  # fmt: skip


def test_a_cell_that_hangs_is_ended_with_its_stacks(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    ended = subprocess.run(
        [sys.executable, "-m", "crossbench", *HANG, f"hydra.run.dir={folder}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    result = load_result(folder)
    assert (result.status, result.failure) == (Status.FAILED, Failure.TIMED_OUT)
    assert re.search(
        r"ended because it took longer than 4\.00 s \(cell_timeout_s\)\. It was at noop\.py:\d+ in "
        r"\w+\. cell\.log has the stacks",
        result.error or "",
    )
    assert "Current thread" in (folder / "cell.log").read_text()


# It sleeps in C and keeps the interpreter's lock, so that no other thread of its process can run
BACKEND = """
import ctypes

from crossbench.backends.noop import NoopBackend


class Hanging(NoopBackend):
    def load_model(self):
        ctypes.PyDLL(None).sleep(1000)
"""
YAML = """
_target_: hanging.Hanging
name: hanging
service_us_per_pair: 0
service_kind: sleep
"""


@pytest.mark.slow
def test_a_backend_of_ones_own_that_hangs_in_native_code_in_the_server_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "conf" / "backend").mkdir(parents=True)
    (tmp_path / "conf" / "backend" / "hanging.yaml").write_text(YAML)
    (tmp_path / "hanging.py").write_text(BACKEND)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    options = (
        "--config-dir",
        f"{tmp_path}/conf",
        "backend=hanging",
        "allow_targets=[hanging.]",
        "target=process",
    )
    more = ("cell_timeout_s=6", *HANG[-3:], f"hydra.run.dir={tmp_path}/0")
    subprocess.run(
        [sys.executable, "-m", "crossbench", *options, *more],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    result = load_result(tmp_path / "0")
    assert result.failure == Failure.TIMED_OUT
    assert "It was at hanging.py:9 in load_model." in (result.error or "")


def test_a_hang_after_the_measurement_keeps_its_metrics_and_is_a_timeout(tmp_path: Path) -> None:
    config = config_of("backend=noop", "cell_timeout_s=1", f"cache_dir={tmp_path}/cache")
    (tmp_path / "0").mkdir()
    finished = RunResult(Status.FINISHED, config, config.cell_id, metrics={"a/b": 1.0})
    save_result(finished, tmp_path / "0")
    endless = tmp_path / "endless"  # a cell process that ends only when it is killed
    endless.write_text("#!/bin/sh\nexec sleep 60\n")
    endless.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(endless))
        result = run_cell(config, tmp_path / "0", Silent(), NoJournal())
    assert (result.status, result.failure) == (Status.FAILED, Failure.TIMED_OUT)
    assert load_result(tmp_path / "0").metrics == {"a/b": 1.0}


class Silent:
    """Shows no progress."""

    def stage(self, stage: str) -> None: ...

    def advance(self, made: ProgressMade) -> None: ...

    def flag(self, flags: Mapping[str, str]) -> None: ...


def test_each_stage_has_a_limit_from_the_cells_own_limits(tmp_path: Path) -> None:
    def limits_of(*overrides: str) -> TimeLimits:
        return time_limits(plan_of(*overrides, cache_dir=tmp_path))

    limits = limits_of("max_seconds=20", "stop=fixed", "warmup_max_seconds=5", "load.timeout_s=30")
    assert limits.stages_s["warming up"] == 5 + 30 + SLACK_S
    assert limits.stages_s["measuring"] == 20 + 30 + SLACK_S
    assert limits.stages_s["loading and compiling"] == 3600
    assert limits.cell_s == sum(limits.stages_s.values())
    assert "checking quality" not in limits_of("quality=none").stages_s
    assert limits_of("cell_timeout_s=9").cell_s == 9


def test_the_place_of_a_hang_is_that_of_the_backend_or_of_the_main_thread(tmp_path: Path) -> None:
    log = tmp_path / "cell.log"
    main = (
        "Current thread 0x01 (most recent call first):\n"
        '  File "/usr/lib/python3.11/selectors.py", line 468 in select\n'
        '  File "/x/crossbench/runner/cell.py", line 92 in measure_cell\n'
    )
    log.write_text(main)
    assert place_of_hang(log) == "cell.py:92 in measure_cell"
    log.write_text(
        "Thread 0x02 (most recent call first):\n"
        '  File "/usr/lib/torch/nn.py", line 7 in forward\n'
        '  File "/x/crossbench/backends/packed.py", line 61 in infer\n' + main
    )
    assert place_of_hang(log) == "packed.py:61 in infer"
    log.write_text("nothing to see\n")
    assert place_of_hang(log) == ""
