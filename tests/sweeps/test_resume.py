"""A sweep whose parent process is killed can be resumed: each cell is measured once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossbench.errors import ConfigError
from crossbench.report.sweep import read_runs
from crossbench.results import (
    UNFINISHED_CHECK,
    Failure,
    RunResult,
    Status,
    load_result,
    save_result,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.resume import resumed_arguments
from crossbench.settings.stored_plan import PLAN_FILE, PlannedRun, StoredPlan, read_plan
from crossbench.sweeps.resume import clear, ended_result, is_kept

CELLS = (
    "-m", "repeats=2", "batch=4,2", "backend=noop", "requests=5", "stop=fixed", "warmup_requests=1",
    "warmup_max_seconds=0.1", "dataset.queries=4", "quality=none", "dashboard=none", "tracker=none",
)  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "crossbench", *arguments]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def kill_at(text: str, arguments: Sequence[str], cwd: Path) -> None:
    """Start a sweep and kill it when its terminal shows `text`."""
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, cwd=cwd) as sweep:
        assert sweep.stderr is not None
        assert any(text in line for line in sweep.stderr)
        sweep.kill()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a sweep that was killed twice and resumed from elsewhere, and the last output.

    The first kill is in the middle of a cell, the second between two cells.
    """
    outputs = tmp_path_factory.mktemp("outputs")
    kill_at("cell 2/4", [*CELLS, "outputs_dir=."], outputs)
    kill_at("writing the report", ["-m", "resume=last", f"outputs_dir={outputs}"], outputs.parent)
    (folder,) = outputs.glob(f"*/{PLAN_FILE}")
    for half_written in ("report.md.1.partial", "0/report.md.1.partial"):  # by a killed process
        (folder.parent / half_written).touch()
    ended = run("-m", f"resume={folder.parent.name}", cwd=outputs)
    assert ended.returncode == 0, ended.stderr
    return folder.parent, ended.stderr


def test_each_cell_of_a_killed_sweep_is_measured_once(resumed: tuple[Path, str]) -> None:
    folder, output = resumed
    runs = read_runs(folder)
    plan = read_plan(folder)
    assert plan is not None
    assert [run.result.status for run in runs] == [Status.FINISHED] * 4
    # The report has the order of the command line, the folders that of running
    batches = [
        (run.result.config.value("batch"), run.result.config.value("repeat")) for run in runs
    ]
    assert batches == [(4, 1), (4, 2), (2, 1), (2, 2)]
    assert [int(run.name) for run in runs] == sorted(range(4), key=lambda n: plan.runs[n].cell)
    assert not list(folder.rglob("*.partial"))
    assert "cell 1/4 noop fp32 batch=" in output
    assert ": finished already" in output
    assert sorted(path.name for path in (folder / "0").iterdir()) == sorted(
        path.name for path in (folder / "3").iterdir()
    )


def test_a_sweep_without_missing_runs_only_writes_its_report(resumed: tuple[Path, str]) -> None:
    folder, _ = resumed
    before = [(folder / str(n) / "result.json").stat().st_mtime_ns for n in range(4)]
    (folder / "report.md").unlink()
    ended = run("-m", f"resume={folder}")
    assert ended.returncode == 0, ended.stderr
    assert "0 cells of 4 left to measure" in ended.stderr
    assert (folder / "report.md").exists()
    assert [(folder / str(n) / "result.json").stat().st_mtime_ns for n in range(4)] == before


def test_a_run_whose_settings_have_changed_is_measured_again_with_the_reason(
    resumed: tuple[Path, str], tmp_path: Path
) -> None:
    folder = shutil.copytree(resumed[0], tmp_path / "sweep")
    path = folder / "0/result.json"
    document = json.loads(path.read_text("utf-8"))
    document["config"]["requests"] = 7
    path.write_text(json.dumps(document), "utf-8")
    ended = run("-m", f"resume={folder}")
    assert ended.returncode == 0, ended.stderr
    assert "measured again, because requests was 7 and is 5" in ended.stderr
    assert "1 cell of 4 left to measure" in ended.stderr


@pytest.mark.parametrize(
    "damage",
    [
        {"runs": [{"cell": 7, "repeat": 1}]},
        {"runs": [{"cell": "1", "repeat": 1}]},
        {"runs": []},
        {"directory": None},
        {"arguments": "-m"},
        {"cells": [1]},
    ],
)
def test_a_damaged_plan_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    plan = {"arguments": ["-m"], "directory": ".", "cells": ["a"],
            "runs": [{"cell": 0, "repeat": None}]}  # fmt: skip
    (tmp_path / PLAN_FILE).write_text(json.dumps(plan))
    assert read_plan(tmp_path) is not None
    (tmp_path / PLAN_FILE).write_text(json.dumps({**plan, **damage}))
    with pytest.raises(ConfigError, match="is damaged: start a new sweep"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "resume={folder}", "batch=8"], "leave out batch=8"),
        (["resume={folder}"], "give python -m crossbench -m resume=FOLDER"),
        (["-m", "resume={folder}/0"], "has no plan.json, so there is nothing to resume"),
        (["-m", "resume=last", "outputs_dir={folder}"], "no sweep in .* can be resumed"),
        (["-m", "repeats=2", "repeat=1,2", "backend=noop"], "leave one of them out"),
        (["-m", "repeats=2", "hydra/sweeper=basic", "backend=noop"], "needs the sweeper of"),
        (["-m", "repeats=2,3", "backend=noop"], "takes one value"),
        (["-m", "repeats=0", "backend=noop"], "repeats must be a positive whole number, got 0"),
        (["repeats=2", "backend=noop"], "repeats=2 needs -m"),
    ],
)
def test_what_cannot_be_resumed_or_repeated_is_refused(
    arguments: list[str], message: str, resumed: tuple[Path, str], tmp_path: Path
) -> None:
    words = [argument.replace("{folder}", str(resumed[0])) for argument in arguments]
    ended = run(*words, cwd=tmp_path)
    assert ended.returncode == 1
    assert re.search(message, ended.stderr), ended.stderr


def result_of(status: Status, failure: str = "", **values: object) -> RunResult:
    result = RunResult(status, CellConfig({"batch": 2}), "", failure=failure)
    return replace(result, cell_id=result.config.cell_id, **values)


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (result_of(Status.FINISHED), True),
        (result_of(Status.UNSUPPORTED), True),
        (result_of(Status.UNAVAILABLE), True),
        (result_of(Status.FAILED), True),
        (result_of(Status.FAILED, Failure.INTERRUPTED), False),
        (result_of(Status.FAILED, Failure.CRASHED), False),
        (result_of(Status.FAILED, Failure.TIMED_OUT), False),
    ],
)
def test_only_what_may_end_differently_is_measured_again(
    result: RunResult, kept: bool, tmp_path: Path
) -> None:
    assert is_kept(result, tmp_path, result.cell_id, retries=1) is kept
    assert not is_kept(result, tmp_path, "another configuration", retries=1)


def test_a_crash_is_tried_again_once_and_all_attempts_are_kept(tmp_path: Path) -> None:
    crash = result_of(Status.FAILED, Failure.CRASHED)
    for attempt in (1, 2):
        save_result(crash, tmp_path)
        assert is_kept(crash, tmp_path, crash.cell_id, retries=1) is (attempt == 2)
        clear(tmp_path, keep=True)
        assert load_result(tmp_path / f"attempt_{attempt}").failure == Failure.CRASHED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempt_1", "attempt_2"]
    (tmp_path / "requests.parquet.1.partial").write_text("half")
    clear(tmp_path, keep=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempt_1", "attempt_2"]


def test_a_run_that_was_killed_while_it_checked_the_ranking_has_not_ended(tmp_path: Path) -> None:
    save_result(result_of(Status.FINISHED, quality={"reason": UNFINISHED_CHECK}), tmp_path)
    assert ended_result(tmp_path) is None
    (tmp_path / "report.md").write_text("the parent wrote it after the cell process had crashed")
    assert ended_result(tmp_path) is not None


def test_credentials_are_not_stored_and_must_be_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("-m", "batch=2,4", "tracker.uri=http://***@host/")
    StoredPlan(arguments, str(tmp_path), ("",), (PlannedRun(0, None),)).save(tmp_path)
    resume = ["-m", f"resume={tmp_path}"]
    with pytest.raises(ConfigError, match="does not store user names, passwords and tokens"):
        resumed_arguments(resume)
    given = "tracker.uri=http://me:secret@host/"
    completed = resumed_arguments([*resume, given])
    assert completed == ["-m", "batch=2,4", given, f'resume="{tmp_path}"']
