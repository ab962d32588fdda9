"""A cell that hangs is ended, and its error says where it hung."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from crossbench.results import Failure, Status, load_result
from crossbench.sweep.watchdog import SLACK_S, TimeLimits, place_of_hang, time_limits
from tests.helpers.plans import plan_of

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
