"""Run the commands of users as processes, and read their results."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

QUICK = (
    "max_seconds=1", "stop=fixed", "warmup_requests=1", "warmup_max_seconds=0.2",
    "dataset.queries=4", "dataset.passages_per_query=40",
)  # fmt: skip

QUIET = ("dashboard=none",)  # the dashboard takes a second to start, and has its own tests


def crossbench(
    *arguments: str, outputs: Path, environment: dict[str, str], module: str = "crossbench"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments, *QUIET, f"outputs_dir={outputs}"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def start(
    *arguments: str, outputs: Path, environment: dict[str, str], module: str = "crossbench"
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *arguments, *QUIET, f"outputs_dir={outputs}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@contextlib.contextmanager
def served(
    *arguments: str, outputs: Path, environment: dict[str, str]
) -> Iterator[tuple[str, str | None]]:
    """Run `crossbench.serve` on free ports; yield HOST:PORT, and the URL of its HTTP port if any.

    It ends by SIGTERM, with status 0.
    """
    process = start(
        "server.port=0", *arguments, outputs=outputs, environment=environment,
        module="crossbench.serve",
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = (re.search(r"listening on (\S+)", line) for line in process.stdout)
        places = (match[1] for match in found if match)
        has_http = any(argument.startswith("server.http.port=") for argument in arguments)
        yield next(places), next(places) if has_http else None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read standard error up to the first line that contains `text`; return that line."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not printed")


def the_sweep(outputs: Path) -> Path:
    (folder,) = (path for path in outputs.iterdir() if re.match(r"\d{4}-", path.name))
    return folder


def results(sweep: Path) -> list[dict[str, object]]:
    folders = sorted(path for path in sweep.iterdir() if path.name.isdecimal())
    return [json.loads((folder / "result.json").read_text()) for folder in folders]


def runs(outputs: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    found = client.search_experiments(filter_string="name = 'crossbench'")
    return list(client.search_runs([experiment.experiment_id for experiment in found]))
