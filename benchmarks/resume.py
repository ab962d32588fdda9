"""Kill a sweep at random moments, resume it, and compare it with an undisturbed sweep.

    python -m benchmarks.resume [--kills 50] [--seed 2027]

Each sweep has two noop cells in two blocks, and MLflow. One is undisturbed. Each of the others is
killed (`kill -9`) at a random moment of the time that the undisturbed one took, and then resumed.
Each must end with the same cells, each once on disk, in the report and as a finished MLflow run.
Sweeps that were killed before they had a plan cannot be resumed; they are counted. The exit status
is 1 if a sweep differs. It writes outputs/resume.md.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossbench.report.cell import REPORT_FILE
from crossbench.report.sweep import CSV_FILE, read_runs
from crossbench.report.tables import markdown_table
from crossbench.results import cell_folders
from crossbench.settings.places import outputs_dir
from crossbench.settings.stored_plan import PLAN_FILE

CELLS = (
    "repeats=2", "batch=2,4", "backend=noop", "requests=20", "stop=fixed", "warmup_requests=1",
    "warmup_max_seconds=0.2", "dataset.queries=4", "quality=none", "dashboard=none",
)  # fmt: skip
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Ending:
    """How a sweep ended: how often each run is on disk, in its CSV file and in MLflow."""

    runs: Mapping[tuple[str, str, str], int]  # by cell, block and status
    rows: Mapping[tuple[str, str, str], int]
    mlflow: Mapping[tuple[str, str], int]  # by number of the cell and status; the parent's is empty
    files: Mapping[str, tuple[str, ...]]  # by folder


def command(*arguments: str, outputs: Path) -> list[str]:
    """Return the command of a sweep with its results in `outputs`."""
    return [sys.executable, "-m", "crossbench", "-m", *arguments, f"outputs_dir={outputs}"]


def ending(folder: Path, with_mlflow: bool = True) -> Ending:
    """Read how the sweep in `folder` ended."""
    runs = [run.result for run in read_runs(folder)]
    with (folder / CSV_FILE).open(encoding="utf-8") as file:
        rows = [(row["cell_id"], row["repeat"], row["status"]) for row in csv.DictReader(file)]
    files = {
        path.name: tuple(sorted(item.name for item in path.iterdir()))
        for path in cell_folders(folder)
    }
    assert (folder / REPORT_FILE).is_file(), f"{folder} has no report"
    return Ending(
        Counter((run.cell_id, str(run.config.value("repeat")), str(run.status)) for run in runs),
        Counter(rows),
        mlflow_runs(folder) if with_mlflow else {},
        files,
    )


def mlflow_runs(folder: Path) -> Mapping[tuple[str, str], int]:
    """Count the MLflow runs of the sweep that did not end as killed."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    experiments = [item.experiment_id for item in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`crossbench.sweep` = '{folder.name}'")
    return Counter(
        (run.data.tags.get("crossbench.cell", ""), run.info.status)
        for run in found
        if run.info.status != "KILLED"
    )


def killed_sweep(folder: Path, after_s: float, *cells: str) -> bool:
    """Start a sweep in `folder` and kill it after `after_s`; return whether it has a plan."""
    sweep = subprocess.Popen(
        command(*cells, f"hydra.sweep.dir={folder}", outputs=folder.parent),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(after_s)
    sweep.kill()
    sweep.wait()
    return (folder / PLAN_FILE).exists()


def resume(folder: Path) -> subprocess.CompletedProcess[str]:
    """Resume the sweep in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "crossbench", "-m", f"resume={folder}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2027)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        outputs = Path(place)
        first = command(*CELLS, f"hydra.sweep.dir={outputs}/first", outputs=outputs)
        subprocess.run(first, check=True, capture_output=True, timeout=TIMEOUT_S)  # makes the store
        started_s = time.monotonic()
        whole = command(*CELLS, f"hydra.sweep.dir={outputs}/whole", outputs=outputs)
        subprocess.run(whole, check=True, capture_output=True, timeout=TIMEOUT_S)
        took_s = time.monotonic() - started_s
        expected = ending(outputs / "whole")
        outcomes: Counter[str] = Counter()
        for number in range(given.kills):
            folder, after_s = outputs / f"killed-{number}", moments.uniform(0, took_s)
            planned = killed_sweep(folder, after_s, *CELLS)
            ended = resume(folder)
            if not planned:
                told = "so there is nothing to resume" in ended.stderr and ended.returncode == 1
                outcome = (
                    "no plan yet, as it said" if told else "no plan yet, but it did not say so"
                )
            elif ended.returncode:
                outcome = f"resuming failed with status {ended.returncode}"
            else:
                found = ending(folder)
                outcome = "the same" if found == expected else f"differs: {found}"
            outcomes[outcome] += 1
            print(
                f"{number + 1}: killed after {after_s:.2f} of {took_s:.2f} s: {outcome}", flush=True
            )
            if outcome not in ("the same", "no plan yet, as it said"):
                print(ended.stderr, flush=True)
    table = markdown_table(
        ["after kill -9 and resume", "sweeps"], [list(map(str, item)) for item in outcomes.items()]
    )
    outputs_dir().mkdir(exist_ok=True)
    (outputs_dir() / "resume.md").write_text(f"{table}\n", "utf-8")
    print(table)
    return int(bool(set(outcomes) - {"the same", "no plan yet, as it said"}))


if __name__ == "__main__":
    sys.exit(main())
