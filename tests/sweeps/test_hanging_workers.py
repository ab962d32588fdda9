"""Cells whose backend hangs, or whose workers are stopped, end within their limits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from crossbench.models.folder import ModelFolder
from crossbench.results import Failure, RunResult, Status, load_result
from tests.helpers.commands import read_until
from tests.helpers.faulty import HangingBackend, faulty_options
from tests.helpers.places import REPO

pytestmark = pytest.mark.slow

QUICK = (
    "batch=2", "concurrency=2", "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
    "max_seconds=2", "dataset.queries=4", "dataset.passages_per_query=40", "quality=none",
    "tracker=none", "dashboard=none",
)  # fmt: skip
WHERE = (
    ("pool=threads", "target=inprocess"),
    ("pool=threads", "target=process"),
    ("pool=processes", "target=inprocess"),
    ("pool=processes", "target=process"),
)


class Cell:
    """A command that measures one cell of a backend that hangs on demand."""

    def __init__(self, folder: Path, model: ModelFolder, *options: str) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.cache.mkdir()
        (self.cache / model.path.name).symlink_to(model.path)
        self._command = [
            *(sys.executable, "-m", "crossbench", *faulty_options(folder, HangingBackend), *QUICK),
            *(f"cache_dir={self.cache}", f"hydra.run.dir={folder}/0", *options),
        ]

    def start(self) -> None:
        # Its processes are in groups of their own: this marks all of them
        marked = {**os.environ, "PYTHONPATH": str(REPO), "CROSSBENCH_TEST": str(self.folder)}
        self.process = subprocess.Popen(
            self._command, env=marked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def processes(self, module: str = "") -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("CROSSBENCH_TEST") == str(self.folder)
                if ours and (not module or module in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Wait until the cell measures, and return its worker processes."""
        read_until(self.process, "measuring")
        return self.processes("crossbench.serving.worker_process")

    def result(self) -> RunResult:
        """Wait for the end; check that no process is left."""
        self.process.communicate(timeout=100)
        assert not self.processes()
        return load_result(self.folder / "0")


HANGS = [(where, "infer") for where in WHERE] + [
    (where, method) for where in (WHERE[0], WHERE[3]) for method in ("load_model", "warmup")
]


@pytest.mark.parametrize(("where", "method"), HANGS)
def test_a_backend_that_hangs_ends_with_its_cell(
    tmp_path: Path, seeded_model: ModelFolder, where: tuple[str, str], method: str
) -> None:
    cell = Cell(tmp_path, seeded_model, *where, "cell_timeout_s=15")
    (cell.cache / method).touch()
    cell.start()
    result = cell.result()
    assert (result.status, result.failure) == (Status.FAILED, Failure.TIMED_OUT)
    assert re.search(rf"It was at faulty\.py:\d+ in {method}\.", result.error or "")


@pytest.mark.parametrize("target", ["inprocess", "process"])
def test_workers_that_are_stopped_are_replaced_and_the_cell_finishes(
    tmp_path: Path, seeded_model: ModelFolder, target: str
) -> None:
    options = ("pool=processes", "pool.workers=2", f"target={target}", "pool.infer_timeout_s=1")
    cell = Cell(tmp_path, seeded_model, *options, "max_seconds=6")
    cell.start()
    for worker in cell.workers():
        worker.send_signal(signal.SIGSTOP)
    result = cell.result()
    assert result.metrics["requests/failed"] >= 1
    assert result.metrics["requests/ok"] > 100


@pytest.mark.parametrize("target", ["inprocess", "process"])
def test_workers_that_are_stopped_until_the_end_end_with_the_cell(
    tmp_path: Path, seeded_model: ModelFolder, target: str
) -> None:
    options = ("pool=processes", f"target={target}", "load.timeout_s=1", "server.grace_s=1")
    cell = Cell(tmp_path, seeded_model, *options)
    cell.start()
    started_s = time.monotonic()
    for worker in cell.workers():
        worker.send_signal(signal.SIGSTOP)
    cell.result()
    assert time.monotonic() - started_s < 60
