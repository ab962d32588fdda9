"""Run the examples of CONTRIBUTING.md unchanged."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from crossbench.load.schedule import SCHEDULE_FILE
from crossbench.models.folder import ModelFolder
from crossbench.results import RunResult, load_cell
from crossbench.types import RequestRecord
from tests.helpers.places import REPO

QUICK = (
    "max_seconds=1",
    "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
    "batch=4", "tracker=none", "dashboard=none",
    "dataset.queries=4", "quality.unjudged_queries=1",
)  # fmt: skip


def run_example(section: str, folder: Path, model: ModelFolder, *overrides: str) -> Path:
    """Write the files of a section, run its command and return the folder of the cell."""
    text = (REPO / "CONTRIBUTING.md").read_text("utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"```(python|yaml|console)\n(.*?)```", body, re.DOTALL)
    for language, block in blocks:
        if found := re.match(r"# (\S+\.(?:py|yaml))\n", block):
            file = folder / "mine" / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block, "utf-8")
        assert found or language == "console"
    (line,) = (block for language, block in blocks if language == "console")
    setting, python, *arguments = shlex.split(line)
    assert python == "python"
    name, path = setting.split("=")
    places = os.pathsep.join(filter(None, [path, str(REPO), os.environ.get(name, "")]))
    done = subprocess.run(
        [sys.executable, *arguments, *QUICK, *overrides, f"outputs_dir={folder / 'outputs'}"],
        capture_output=True,
        text=True,
        env={**os.environ, name: places, "CROSSBENCH_CACHE": str(model.path.parent)},
        cwd=folder,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "outputs").glob("*/0/result.json")
    return file.parent


def test_the_example_backend_runs_a_cell(tmp_path: Path, seeded_model: ModelFolder) -> None:
    cell = run_example("Adding a backend", tmp_path, seeded_model)
    result = json.loads((cell / "result.json").read_text())
    assert result["status"] == "finished", result["error"]
    assert result["metrics"]["requests/ok"] > 0
    served = result["model"]
    assert (served["backend"], served["quant"], served["device"]) == ("bag", "fp16", "cpu")
    rows, columns = 30522, 384
    assert result["metrics"]["memory/model_mb"] * 1e6 == rows * columns * 2


@pytest.fixture(scope="module")
def example_load(
    tmp_path_factory: pytest.TempPathFactory, seeded_model: ModelFolder
) -> tuple[Path, RunResult, list[RequestRecord]]:
    cell = run_example("Adding a load", tmp_path_factory.mktemp("load"), seeded_model)
    return cell, *load_cell(cell)


def test_the_example_load_follows_its_schedule(
    example_load: tuple[Path, RunResult, list[RequestRecord]],
) -> None:
    cell, result, records = example_load
    assert result.status == "finished", result.error
    assert result.metrics["requests/ok"] == 50  # five requests ten times in one second
    assert sorted(record.due_s for record in records) == pytest.approx(
        [number // 5 * 0.1 for number in range(50)]
    )
    assert all(record.sent_s >= record.due_s for record in records)
    assert (cell / SCHEDULE_FILE).is_file()


def test_a_cell_of_the_example_load_is_not_named_after_a_concurrency(
    example_load: tuple[Path, RunResult, list[RequestRecord]],
) -> None:
    cell, result, _ = example_load
    assert result.config.value("concurrency") == 1
    text = (cell / "report.md").read_text("utf-8")
    assert text.splitlines()[0] == "# noop fp32 batch=4 bursts size=5 period_s=0.1"
