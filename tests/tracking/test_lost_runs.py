"""Runs of processes that were killed do not stay RUNNING; an upload can be killed at any point."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from crossbench.results import RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.upload import upload_sweep
from crossbench.tracking.mlflow_format import PROCESS_TAG
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef
from crossbench.tracking.run_process import RunProcess
from tests.helpers.stored_sweeps import embedded_tracker, save_sweep

SWEEP = "2026-01-02_03-04-00"
RESULT = RunResult(
    status=Status.FINISHED,
    config=CellConfig({"backend": {"name": "noop"}, "batch": 8}),
    cell_id="0123456789ab",
    metrics={"throughput/pairs_per_s": 100.0},
    series={"time_s": [1.0, 2.0], "pairs_per_s": [100.0, 120.0]},
    environment={"host": platform.node()},
    dataset={"name": "synthetic", "source": "made up", "digest": "beef"},
    started_at="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def tracker(outputs: Path) -> MlflowTracker:
    return embedded_tracker(outputs)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep on disk with a finished and a failed cell."""
    folder = tmp_path / SWEEP
    failed = replace(RESULT, status=Status.FAILED, error="no luck", metrics={}, series={})
    save_sweep(folder, (RESULT, failed), 2, "{batch: '8,16'}", "[backend=noop]")
    for number in ("0", "1"):
        (folder / number / "report.md").write_text("# Cell\n", "utf-8")
    (folder / "report.md").write_text("# Sweep\n", "utf-8")
    return folder


def in_killed_process(work: Callable[[], object]) -> None:
    """Do the work in a child process that is then killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os.kill(os.getpid(), 9)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == 9


def runs(tracker: MlflowTracker) -> list[Run]:
    client = MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name("crossbench")
    return list(client.search_runs([experiment.experiment_id]))


def test_only_runs_of_processes_that_ended_are_closed(tracker: MlflowTracker) -> None:
    in_killed_process(lambda: replace(tracker).start_cell("lost", None, CellRef(SWEEP, 0)))
    mine = tracker.start_cell("mine", None, CellRef(SWEEP, 1))
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone = json.loads(RunProcess.this().text()) | {"pid": 2**22 - 1}
    untouched = {
        "of another machine": gone | {"host": "elsewhere"},
        "of another container": gone | {"namespace": "pid:[1]"},
        "of a living process": gone | {"pid": sleeper.pid, "started_s": time.time()},
        "unreadable": [],
    }
    client = MlflowClient(tracker.uri)
    for name, process in untouched.items():
        run_id = tracker.open_cell(name, None, CellRef(SWEEP, 2), platform.node(), None)
        client.set_tag(run_id, PROCESS_TAG, json.dumps(process))
    for name, process in {
        "of a reused id": gone | {"pid": sleeper.pid, "started_s": 1.0},
        "before the machine started again": gone | {"pid": os.getpid(), "boot": "another"},
    }.items():
        run_id = tracker.open_cell(name, None, CellRef(SWEEP, 3), "bench-1", None)
        client.set_tag(run_id, PROCESS_TAG, json.dumps(process))

    assert tracker.end_lost_runs() == 3
    assert tracker.end_lost_runs() == 0
    status = {run.info.run_name: run.info.status for run in runs(tracker)}
    assert status == {
        "lost": "KILLED",
        "of a reused id": "KILLED",
        "before the machine started again": "KILLED",
        "mine": "RUNNING",
        **dict.fromkeys(untouched, "RUNNING"),
    }
    (lost,) = (run for run in runs(tracker) if run.info.run_name == "lost")
    assert "ended without ending this run" in lost.data.tags["mlflow.note.content"]
    assert mine
    sleeper.communicate(b"\n")


def test_a_closed_run_with_a_result_is_completed(sweep: Path, tracker: MlflowTracker) -> None:
    in_killed_process(lambda: replace(tracker).start_cell("lost", None, CellRef(SWEEP, 0)))
    tracker.end_lost_runs()
    assert upload_sweep(sweep, tracker).uploaded == 2
    (first,) = (run for run in runs(tracker) if run.data.tags.get("crossbench.cell") == "0")
    assert (first.info.run_name, first.info.status) == ("lost", "FINISHED")
    assert "killed" not in first.data.tags["mlflow.note.content"]


def upload_killed(sweep: Path, tracker: MlflowTracker, call: int) -> bool:
    """Upload in a process that is killed before a call to the store; False if it makes fewer.

    Calls are counted from 1.
    """
    found, left = MlflowClient.__getattribute__, [call]

    def counted(self: MlflowClient, name: str) -> object:
        if not name.startswith("_"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)
        return found(self, name)

    child = os.fork()
    if child == 0:
        type.__setattr__(MlflowClient, "__getattribute__", counted)
        try:
            upload_sweep(sweep, replace(tracker))
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def check_uploaded_once(sweep: Path, tracker: MlflowTracker) -> None:
    again = upload_sweep(sweep, replace(tracker))
    assert (again.uploaded, again.present) == (0, 2)
    tracker.end_lost_runs()
    every = runs(tracker)
    cells = sorted(run.data.tags.get("crossbench.cell", "sweep") for run in every)
    assert cells == ["0", "1", "sweep"]
    assert sorted(run.info.status for run in every) == ["FAILED", "FAILED", "FINISHED"]
    (parent,) = (run for run in every if "crossbench.cell" not in run.data.tags)
    assert parent.data.params == {"batch": "8,16", "backend": "noop"}


def test_an_upload_may_be_killed_again_and_again(sweep: Path, tracker: MlflowTracker) -> None:
    kills = 0
    while upload_killed(sweep, tracker, 3 + kills):  # each upload gets a little further
        kills += 1
    assert kills >= 8
    check_uploaded_once(sweep, tracker)


@pytest.mark.slow
def test_an_upload_may_be_killed_before_any_call_to_the_store(
    sweep: Path, tracker: MlflowTracker, migrated_store: Path
) -> None:
    call = 1
    while upload_killed(sweep, tracker, call):
        upload_sweep(sweep, replace(tracker))
        check_uploaded_once(sweep, tracker)
        shutil.copy(migrated_store, tracker.uri.removeprefix("sqlite:///"))
        (sweep / ".uploads").unlink(missing_ok=True)
        tracker = replace(tracker)
        call += 1
    assert call > 20


def test_two_uploads_at_once_upload_each_cell_once(sweep: Path, tracker: MlflowTracker) -> None:
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            upload_sweep(sweep, replace(tracker))
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    upload_sweep(sweep, tracker)
    assert len(runs(tracker)) == 3
