"""A server that is stopped for a second in mid-run: what an open and a closed loop see of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from crossbench.load.schedule import SCHEDULE_FILE
from crossbench.measure import catalogue
from crossbench.models.folder import ModelFolder
from crossbench.results import RunResult, load_cell
from crossbench.types import RequestRecord
from tests.helpers.commands import start, the_sweep

pytestmark = pytest.mark.slow

FROZEN_S = 1.0
CELL = (
    "backend=noop", "backend.service_us_per_pair=2000", "target=process", "quality=none",
    "tracker=none", "dataset.queries=4", "dataset.passages_per_query=40", "warmup_requests=4",
    "batch=2", "stop=fixed", "max_seconds=4", "warmup_max_seconds=1",
)  # fmt: skip


@dataclass(frozen=True)
class Frozen:
    """A cell whose server was stopped for FROZEN_S."""

    folder: Path
    result: RunResult
    records: list[RequestRecord]
    report: str


def server_of(command: psutil.Process) -> psutil.Process:
    """Return the server process of the cell that this command measures."""
    (server,) = (
        process
        for process in command.children(recursive=True)
        if "crossbench.runner.target_child" in process.cmdline()
    )
    return server


@contextmanager
def cell(outputs: Path, environment: dict[str, str], *load: str) -> Iterator[subprocess.Popen[str]]:
    """Start a cell, and wait for its end on leaving."""
    with start(*CELL, *load, outputs=outputs, environment=environment) as process:
        try:
            yield process
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        finally:
            process.kill()


def until_measuring(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert any("measuring" in line for line in process.stderr), "the cell measured nothing"


@pytest.fixture(scope="module")
def frozen(
    tmp_path_factory: pytest.TempPathFactory, seeded_model: ModelFolder
) -> dict[str, Frozen]:
    """Measure an open and a closed loop at the same time, and stop both servers for a second."""
    environment = {**os.environ, "CROSSBENCH_CACHE": str(seeded_model.path.parent)}
    open_, closed = (tmp_path_factory.mktemp(name) for name in ("open", "closed"))
    with (
        cell(open_, environment, "load=constant", "load.rate=60") as one,
        cell(closed, environment, "load=closed", "concurrency=1") as other,
    ):
        for process in (one, other):
            until_measuring(process)
        time.sleep(1.0)
        servers = [server_of(psutil.Process(process.pid)) for process in (one, other)]
        for server in servers:
            server.send_signal(signal.SIGSTOP)
        time.sleep(FROZEN_S)
        for server in servers:
            server.send_signal(signal.SIGCONT)
    return {"open": _frozen(open_), "closed": _frozen(closed)}


def _frozen(outputs: Path) -> Frozen:
    folder = the_sweep(outputs) / "0"
    return Frozen(folder, *load_cell(folder), (folder / "report.md").read_text("utf-8"))


def test_an_open_loop_shows_the_requests_that_waited(frozen: dict[str, Frozen]) -> None:
    found = frozen["open"]
    metrics = found.result.metrics
    assert not found.result.flags.get("over-saturated")
    assert len(found.records) == 240
    assert (found.folder / SCHEDULE_FILE).is_file()
    # A quarter of the requests were due while the server was stopped
    assert sum(record.latency_ms > 100 for record in found.records) > 40
    assert 700 < metrics["latency/p99_ms"] < 3000
    assert metrics["latency/p50_ms"] < 100
    assert metrics["service/p50_ms"] < 100
    assert "closed loop" not in found.report


def test_a_closed_loop_hardly_sees_it_and_its_report_says_so(frozen: dict[str, Frozen]) -> None:
    found = frozen["closed"]
    metrics = found.result.metrics
    assert metrics["requests/ok"] > 110  # so that a single request is beyond the p99
    assert sum(record.latency_ms > 900 * FROZEN_S for record in found.records) == 1
    assert metrics["latency/p99_ms"] < 200
    assert "In a closed loop no request is due while all users wait" in found.report
    assert not (found.folder / SCHEDULE_FILE).exists()


@pytest.mark.parametrize("load", ["open", "closed"])
def test_the_stall_is_counted_and_the_report_warns(load: str, frozen: dict[str, Frozen]) -> None:
    found = frozen[load]
    assert found.result.metrics[catalogue.STALLS.name] == 1
    (warning,) = (words for words in found.result.warnings if "stalled" in words)
    assert warning.startswith("The server stalled 1 time (at most 1.0 s)")
    assert warning in found.report
