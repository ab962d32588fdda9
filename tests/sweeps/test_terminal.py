"""Text in the terminal is printed unchanged: square brackets are not markup."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crossbench.events import ProgressMade
from crossbench.report.terminal import cell_line
from crossbench.results import RESULT_FILE, Status, load_result, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import QUIET, take_quiet
from crossbench.sweeps.finish import finish_sweep
from crossbench.sweeps.progress import SteadyConsole, cell_progress, time_left_s
from crossbench.sweeps.services import Tracking
from crossbench.sweeps.state import STATE_FILE, SweepState
from crossbench.tracking.protocol import NoTracker

STORED = Path(__file__).resolve().parents[1] / "data" / "sweep_of_schema_1"
ADVICE = "MLX is not installed: pip install 'crossbench[mlx]'"


def test_table_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sweep"
    shutil.copytree(STORED, folder)
    result = load_result(folder / "1")
    save_result(replace(result, status=Status.UNAVAILABLE, error=ADVICE), folder / "1")
    state = SweepState(folder.name, 2, None, os.getpid(), None, ())
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)), "utf-8")
    finish_sweep(folder, Tracking(NoTracker("none"), "sync", folder / ".offline", None))
    assert ADVICE in capsys.readouterr().err


def test_table_of_a_single_cell(tmp_path: Path) -> None:
    """The error message has the name of an empty folder."""
    (tmp_path / "models[new]").mkdir()
    arguments = ["model=local", "model.path='models[new]'", "backend=noop", "tracker=none"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "crossbench",
            *arguments,
            "--quiet",
            "dashboard=none",
            f"outputs_dir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith("cell 1/1 noop fp32 batch=32 concurrency=1: failed: ")
    assert second == "noop fp32 batch=32 concurrency=1"  # of the table: there is no progress
    below = " ".join(done.stderr.partition("pairs/s  p50 (ms)")[2].split())
    assert "failed: " in below
    assert "the folder with modules.json)" in below  # nothing is cut off
    assert "models[new] is not a model folder" in done.stderr


def test_quiet_shows_no_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUIET, "0")  # restored after the test
    assert take_quiet(["-m", "--quiet", "batch=8"]) == ["-m", "batch=8"]
    with cell_progress("cell 1/2", CellConfig()) as progress:
        progress.stage("loading")
        progress.flag({"disturbed": "others used 1.2 cores."})
    console = SteadyConsole(stderr=True)
    console.tell("cell 1/2: 100 pairs/s")
    console.print("tracking: no space left")
    assert capsys.readouterr().err == "tracking: no space left\n"


def test_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with cell_progress("cell 1/2 model=my[bold]", CellConfig()) as progress:
        progress.stage("loading [x] :warning:")
        for reason in ("others used 1.2 cores.", "others used 1.3 cores."):
            progress.flag({"disturbed": reason})
            progress.flag({})
    assert capsys.readouterr().err == (
        "cell 1/2 model=my[bold]: loading [x] :warning:\n"
        "cell 1/2 model=my[bold]: disturbed: others used 1.2 cores.\n"
    )


def test_an_ended_cell_has_a_line_with_its_figures_or_its_reason() -> None:
    result = load_result(STORED / "1")
    line = cell_line(result, "cell 2/4 batch=8")
    assert re.fullmatch(r"cell 2/4 batch=8: [\d,.]+( ± [\d.]+)? pairs/s, p95 .* ms.*", line), line
    failed = replace(result, status=Status.FAILED, error="out of memory", metrics={})
    assert cell_line(failed, "cell 2/4 batch=8") == "cell 2/4 batch=8: failed: out of memory"


def test_the_time_left_is_that_of_the_measured_cells(tmp_path: Path) -> None:
    assert time_left_s(tmp_path, 3) == 0.0
    started = datetime(2026, 1, 1, tzinfo=UTC)
    for number, took_s in enumerate((10, 20, 60)):
        shutil.copytree(STORED / "1", tmp_path / str(number))
        result = load_result(tmp_path / str(number))
        save_result(replace(result, started_at=started.isoformat()), tmp_path / str(number))
        ended_s = started.timestamp() + took_s
        os.utime(tmp_path / str(number) / RESULT_FILE, (ended_s, ended_s))
    assert time_left_s(tmp_path, 3) == 60.0


def test_at_80_columns_the_name_and_the_figures_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    name = "cell 12/24 batch=32 concurrency=16"
    output = io.StringIO()
    with contextlib.redirect_stderr(output), cell_progress(name, CellConfig()) as progress:
        progress.advance(ProgressMade(120, 0.5, 12345.6, 123.4))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    assert name in text
    assert "12,345.6 pairs/s, p50 123.4 ms" in text
