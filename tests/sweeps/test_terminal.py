"""Text in the terminal is printed unchanged: square brackets are not markup."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from crossbench.results import Status, load_result, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.sweeps.finish import finish_sweep
from crossbench.sweeps.progress import cell_progress
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
            "dashboard=none",
            f"outputs_dir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "failed: " in done.stderr.partition("pairs/s  p50 (ms)")[2]
    assert "models[new] is not a model folder" in done.stderr


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
