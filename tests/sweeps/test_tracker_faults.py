"""A tracker that is slow, dead or broken is tried once; the sweep then goes on without it."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crossbench.errors import ConfigError
from crossbench.results import RunResult, Status, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.services import Tracking
from crossbench.system.bounded import within
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.tracking.protocol import CellRef
from tests.helpers.bad_servers import ANSWERS, bad_server, free_port
from tests.helpers.commands import crossbench, results, the_sweep

RESULT = RunResult(
    status=Status.FINISHED, config=CellConfig({"batch": 8}), cell_id="ab", started_at="2026-01-02"
)
Warnings = Callable[[], list[str]]


@pytest.fixture
def warnings(capsys: pytest.CaptureFixture[str]) -> Warnings:
    """Return the warnings about the tracker that were printed since the last call."""
    return lambda: re.findall(r"tracking:.*?SYNC\)", capsys.readouterr().err, re.DOTALL)


@pytest.fixture(autouse=True)
def no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow reads these from the environment, where another test's tracker may have put them."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def tracking(uri: str, folder: Path) -> Tracking:
    tracker = MlflowTracker("mlflow", uri, "crossbench", str(folder / "artifacts"), None, 1.0)
    return Tracking(tracker, "SYNC", folder / ".tracker-offline", 1.0)


def track_a_sweep(tracked: Tracking, folder: Path) -> None:
    """What a sweep of two cells asks of its tracker."""
    parent = tracked.attempt(lambda tracker: tracker.start_sweep("sweep", "sweep", []))
    for number in range(2):
        where = CellRef("sweep", number)
        again = replace(tracked)  # every cell makes its own
        run = again.attempt(lambda tracker, at=where: tracker.start_cell("cell", parent, at))
        if run is not None:
            again.attempt(lambda tracker, run_id=run: tracker.finish_cell(run_id, RESULT, folder))


@pytest.mark.parametrize("kind", [*ANSWERS, "refused"])
def test_a_useless_server_is_asked_once(kind: str, tmp_path: Path, warnings: Warnings) -> None:
    with contextlib.ExitStack() as stack:
        server = None if kind == "refused" else stack.enter_context(bad_server(kind))
        port = server.port if server else free_port()
        tracked = tracking(f"http://127.0.0.1:{port}", tmp_path)
        assert tracked.attempt(lambda tracker: tracker.start_sweep("sweep", "sweep", [])) is None
        asked = server.connections if server else 0
        track_a_sweep(tracked, tmp_path)
        assert (server.connections if server else 0) == asked <= 2
    assert len(warnings()) == 1
    assert tracked.offline.exists()


def test_an_upload_of_files_that_hangs_is_given_up(
    outputs: Path, tmp_path: Path, warnings: Warnings
) -> None:
    with bad_server("silent") as server:
        tracked = tracking(f"sqlite:///{outputs}/mlflow.db", tmp_path)
        tracker = replace(
            tracked.tracker,  # type: ignore[type-var]
            artifact_location=f"http://127.0.0.1:{server.port}/files",
        )
        tracked = replace(tracked, tracker=tracker)
        save_result(RESULT, tmp_path)
        track_a_sweep(tracked, tmp_path)
        assert server.connections
    assert len(warnings()) == 1


def test_a_locked_store_is_given_up(outputs: Path, tmp_path: Path, warnings: Warnings) -> None:
    tracked = tracking(f"sqlite:///{outputs}/mlflow.db", tmp_path)
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        database.execute("BEGIN IMMEDIATE")  # others may read, but not write
        track_a_sweep(tracked, tmp_path)
    assert len(warnings()) == 1


def test_a_call_that_hangs_does_not_keep_its_process_from_ending() -> None:
    code = (
        "import threading; from crossbench.system.bounded import within\n"
        "try: within(0.1, threading.Event().wait)\n"
        "except TimeoutError: print('given up', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("given up\n", 0)


def test_a_bounded_call_returns_and_raises_as_usual() -> None:
    assert within(60, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0)
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        within(0.01, lambda: time.sleep(0.5))


def test_a_time_limit_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.timeout_s=20"):
        MlflowTracker("mlflow", "http://x", "crossbench", None, None, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["silent", "byte by byte"])
def test_a_sweep_is_measured_beside_a_server_that_never_answers(
    kind: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    with bad_server(kind) as server:
        done = crossbench(
            *("-m", "backend=noop", "batch=4,8,16", "requests=20", "stop=fixed", "quality=none"),
            *("warmup_requests=1", "warmup_max_seconds=0.2", "tracker.timeout_s=2"),
            f"tracker.uri=http://127.0.0.1:{server.port}",
            outputs=tmp_path,
            environment=environment,
        )
        assert server.connections <= 2
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tracking:") == 1
    assert [item["status"] for item in results(the_sweep(tmp_path))] == ["finished"] * 3
