"""CONTRIBUTING.md's worked example of a backend, run as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from crossbench.models.folder import ModelFolder
from tests.conftest import REPO

QUICK = (
    "max_seconds=1", "warmup_requests=1", "batch=4", "tracker=none", "dashboard=none",
    "dataset.queries=4", "quality.unjudged_queries=1",
)  # fmt: skip


def test_the_example_backend_runs_a_cell(tmp_path: Path, seeded_model: ModelFolder) -> None:
    text = (REPO / "CONTRIBUTING.md").read_text("utf-8")
    blocks = re.findall(r"```(python|yaml|console)\n(.*?)```", text, re.DOTALL)
    for language, block in blocks:
        if found := re.match(r"# (\S+\.(?:py|yaml))\n", block):
            file = tmp_path / "mine" / found[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block, "utf-8")
        assert found or language == "console"
    (line,) = (block for language, block in blocks if language == "console")
    setting, python, *arguments = shlex.split(line)
    assert python == "python"
    name, folder = setting.split("=")
    path = os.pathsep.join(filter(None, [folder, str(REPO), os.environ.get(name, "")]))
    environment = {
        **os.environ,
        name: path,
        "CROSSBENCH_CACHE": str(seeded_model.path.parent),
    }
    outputs = tmp_path / "outputs"
    done = subprocess.run(
        [sys.executable, *arguments, *QUICK, f"outputs_dir={outputs}"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (file,) = outputs.glob("*/0/result.json")
    result = json.loads(file.read_text())
    assert result["status"] == "finished", result["error"]
    assert result["metrics"]["requests/ok"] > 0
    served = result["model"]
    assert (served["backend"], served["quant"], served["device"]) == ("bag", "fp16", "cpu")
    rows, columns = 30522, 384
    assert result["metrics"]["memory/model_mb"] * 1e6 == rows * columns * 2
