"""`python -m crossbench.report`: reports written again from what is on disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

STORED = Path(__file__).parents[1] / "data/sweep_of_schema_1"


def report(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossbench.report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_reports_are_written_again(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(STORED, sweep)
    for path in sweep.rglob("report.md"):
        path.unlink()
    (sweep / "2").mkdir()  # a cell that was killed before it had a result
    done = report(str(sweep))
    assert done.returncode == 0, done.stderr
    assert "1 cell without a result" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report: {sweep / 'report.md'}"
    assert (sweep / "report.md").read_text("utf-8").startswith("# Sweep sweep")
    assert all((sweep / cell / "report.md").is_file() for cell in ("0", "1"))
    alone = report(str(sweep / "1"))
    assert alone.stdout.splitlines()[-1] == f"report: {sweep / '1' / 'report.md'}"


def test_a_folder_without_results_is_refused_in_words(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        failed = report(str(folder))
        assert failed.returncode == 1
        assert f"{folder} has no cell with a result.json" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert "usage: python -m crossbench.report" in report().stderr
