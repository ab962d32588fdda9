"""A password on the command line is in no file, in no MLflow run and not on the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.bad_servers import free_port
from tests.helpers.commands import results, runs, the_sweep

QUICK = (
    "backend=noop", "requests=20", "stop=fixed", "warmup_requests=1", "warmup_max_seconds=0.2",
    "quality=none", "dashboard=none",
)  # fmt: skip
PASSWORD, TOKEN, SIGNATURE = "Zq7/pass@w:ord", "Zq7token", "Zq7signature"
QUERY = f"token={TOKEN}&X-Amz-Signature={SIGNATURE}"


def crossbench(
    *arguments: str, environment: dict[str, str], module: str = "crossbench"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def check_hidden(outputs: Path, *done: subprocess.CompletedProcess[str]) -> None:
    texts = {str(index): item.stdout + item.stderr for index, item in enumerate(done)}
    for path in outputs.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes().decode("utf-8", "replace")
    assert [name for name, text in texts.items() if "Zq7" in text or "pass@" in text] == []


@pytest.mark.slow
def test_a_password_is_nowhere_after_a_sweep_and_its_resumption(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Nobody listens at the address, so that the tracker fails and shows what it was told."""
    uri = f"tracker.uri=http://alice:{PASSWORD}@127.0.0.1:{free_port()}/x?{QUERY}"
    where = f"outputs_dir={tmp_path}"
    done = crossbench(
        "-m", *QUICK, "batch=2,4", uri, "hydra.output_subdir=.hydra", where, environment=environment
    )
    assert done.returncode == 0, done.stderr
    sweep = the_sweep(tmp_path)
    (sweep / "1" / "result.json").unlink()
    refused = crossbench("-m", "resume=last", where, environment=environment)
    assert "give 'tracker.uri=" in refused.stderr
    resumed = crossbench("-m", "resume=last", uri, where, environment=environment)
    assert resumed.returncode == 0, resumed.stderr
    assert [item["status"] for item in results(sweep)] == ["finished"] * 2
    synced = crossbench(str(sweep), uri, where, environment=environment, module="crossbench.sync")
    assert "MLflow at http://***@127.0.0.1" in synced.stderr
    wrong = crossbench(*QUICK, uri, "batch=0", where, environment=environment)
    check_hidden(tmp_path, done, refused, resumed, synced, wrong)


@pytest.mark.slow
def test_a_password_is_not_in_mlflow(outputs: Path, environment: dict[str, str]) -> None:
    """A study may name an address."""
    study, where = f"study=https://alice:{PASSWORD}@host/?{QUERY}", f"outputs_dir={outputs}"
    done = crossbench("-m", *QUICK, "batch=2", study, where, environment=environment)
    assert done.returncode == 0, done.stderr
    stored = runs(outputs)
    assert len(stored) == 2
    cell = next(run for run in stored if "mlflow.parentRunId" in run.data.tags)
    assert cell.data.params["study"] == "https://***@host/?token=***&X-Amz-Signature=***"
    assert "Zq7" not in json.dumps([run.to_dictionary() for run in stored], default=str)
    check_hidden(outputs, done)
