"""`python -m crossbench.compare`: folders and MLflow, exit statuses, refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossbench import compare
from crossbench.errors import CrossbenchError
from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.models.folder import ModelFolder
from crossbench.results import RESULT_FILE
from tests.helpers.commands import QUICK, the_sweep
from tests.helpers.commands import crossbench as run
from tests.helpers.places import REPO

pytestmark = pytest.mark.slow

OLD = REPO / "tests/data/sweep_of_schema_1"


@pytest.fixture(scope="module")
def swept(
    migrated_store: Path, seeded_model: ModelFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A real sweep of two cells, and the URI of the MLflow store that has it too."""
    outputs = tmp_path_factory.mktemp("swept")
    shutil.copy(migrated_store, outputs / "mlflow.db")
    done = run(
        "-m", "backend=noop", "batch=2,4", "requests=100", "quality=none", *QUICK[1:],
        outputs=outputs,
        environment={**os.environ, "CROSSBENCH_CACHE": str(seeded_model.path.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return the_sweep(outputs), f"sqlite:///{outputs}/mlflow.db"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No selfcheck of the machine that runs the tests."""
    monkeypatch.setenv("CROSSBENCH_CACHE", str(tmp_path / "cache"))


def changed(sweep: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a sweep and change the result of each of its cells."""
    shutil.copytree(sweep, folder)
    for path in folder.glob(f"*/{RESULT_FILE}"):
        result = json.loads(path.read_text("utf-8"))
        change(result)
        path.write_text(json.dumps(result), "utf-8")
    return folder


def test_a_sweep_on_disk_equals_itself_in_mlflow(
    swept: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, uri = swept
    words = [str(folder), folder.name, "--tracking-uri", uri, "--output", str(tmp_path / "out")]
    assert compare.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("No regression beyond 2 % was found")
    assert "noop fp32 batch=2" in out
    assert "Differences may also come from" not in out  # MLflow has the same facts
    report = (tmp_path / "out/report.md").read_text("utf-8")
    rows = [line for line in report.splitlines() if "(n=1)" in line]
    assert len(rows) == 6  # three metrics of two cells
    assert all("+0.0 %" in row for row in rows)
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_sweeps_in_mlflow_are_named_or_have_an_id(
    swept: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, uri = swept
    parent = json.loads((folder / "sweep.json").read_text("utf-8"))["parent_run_id"]
    words = ["--tracking-uri", uri, "--output", str(tmp_path)]
    assert compare.main([parent, folder.name, *words]) == 0
    with pytest.raises(CrossbenchError, match=f"no run 'nothing'. .*{folder.name}"):
        compare.main(["nothing", folder.name, *words])


def test_a_regression_is_exit_status_3(
    swept: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def halve(result: dict[str, Any]) -> None:
        result["metrics"][PAIRS_PER_S.name] /= 2

    folder, _ = swept
    slow = changed(folder, tmp_path / "slow", halve)
    words = ["--output", str(tmp_path / "out")]
    assert compare.main([str(folder), str(slow), *words]) == compare.EXIT_REGRESSION
    assert capsys.readouterr().out.startswith("REGRESSION: B is worse than A in 2 of 2 cells.")
    assert compare.main([str(slow), str(folder), *words]) == 0
    assert compare.main([str(folder), str(slow), "--threshold", "0.6", *words]) == 0


def test_another_model_is_refused_unless_forced(
    swept: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = swept
    other = changed(folder, tmp_path / "other", lambda result: result["model"].update(digest="x"))
    words = [str(folder), str(other), "--output", str(tmp_path / "out")]
    with pytest.raises(CrossbenchError, match=r"hash of the model \(.* in A, x in B\)"):
        compare.main(words)
    assert compare.main([*words, "--force"]) == 0
    assert "was forced although these differ: hash of the model" in capsys.readouterr().out


def test_old_results_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(OLD), str(OLD / "1"), "--output", str(tmp_path)]
    assert compare.main(words) == 3  # the other cells are missing
    assert "only A has it" in capsys.readouterr().out
    assert compare.main([*words, "--common"]) == 0
    assert "no counterpart and" in capsys.readouterr().out


def test_the_command_says_what_it_cannot_use(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "crossbench.compare", *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    missing = command(str(tmp_path), "nowhere")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith(f"crossbench: {tmp_path} has no cell: give the folder")
    wrong = command("a", "b", "--threshold", "5")
    assert wrong.returncode == 2
    assert "give for example 0.05, which is 5 %" in wrong.stderr
