"""What must hold after `benchmarks.chaos`: each cell exactly once, and no half-written file."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.report.cell import REPORT_FILE
from crossbench.report.sweep import CSV_FILE
from crossbench.results import RESULT_FILE, Status, cell_folders, load_records, load_result
from crossbench.settings.stored_plan import read_plan

ENDINGS = {".png": b"IEND\xaeB`\x82", ".svg": b"</svg>\n", ".csv": b"\r\n", ".parquet": b"PAR1"}


def is_complete(folder: Path) -> bool:
    """Return whether the sweep has a plan, and each of its cells is finished."""
    plan = read_plan(folder)
    return plan is not None and all(
        _is_finished(folder / str(number)) for number in range(len(plan.runs))
    )


def _is_finished(cell: Path) -> bool:
    try:
        return load_result(cell).status is Status.FINISHED
    except ResultError:
        return False


def lost_on_disk(folder: Path) -> Iterator[str]:
    """Yield what is missing or too much in the folder of a complete sweep."""
    plan, name = read_plan(folder), folder.name
    if plan is None:
        yield f"{name} has no plan"
        return
    expected = [plan.cells[run.cell] for run in plan.runs]
    found = {cell.name: cell for cell in cell_folders(folder)}
    if [*found] != [str(number) for number in range(len(expected))]:
        yield f"{name} has the folders {[*found]}"
        return
    for cell, cell_id in zip(found.values(), expected, strict=True):
        if not _is_finished(cell):
            yield f"{name}/{cell.name} is not finished"
        elif load_result(cell).cell_id != cell_id:
            yield f"{name}/{cell.name} is another cell"
        elif not load_records(cell) or not (cell / REPORT_FILE).is_file():
            yield f"{name}/{cell.name} lacks its requests or its report"
    if not (folder / REPORT_FILE).is_file():
        yield f"{name} has no report"
        return
    with (folder / CSV_FILE).open(encoding="utf-8", newline="") as file:
        rows = Counter((row["cell_id"], row["status"]) for row in csv.DictReader(file))
    if rows != Counter((cell_id, "finished") for cell_id in expected):
        yield f"{name}/{CSV_FILE} has {dict(rows)}"


def lost_in_mlflow(uri: str, sweeps: Sequence[Path]) -> Iterator[str]:
    """Yield what is wrong with the runs in MLflow, after `sync`."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [item.experiment_id for item in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=10_000)
    for run in runs:
        if run.info.status == "RUNNING":
            yield f"MLflow: {run.info.run_name} is RUNNING ({run.data.tags})"
    for folder in sweeps:
        ours = [run for run in runs if run.data.tags.get("crossbench.sweep") == folder.name]
        finished = [run for run in ours if run.info.status == "FINISHED"]
        cells = [run for run in finished if "crossbench.cell" in run.data.tags]
        parents = {run.info.run_id for run in finished if run not in cells}
        times = Counter(run.data.tags["crossbench.cell"] for run in cells)
        if times != Counter(cell.name for cell in cell_folders(folder)):
            yield f"MLflow: {folder.name} has these finished cells: {dict(times)}"
        if len(parents) != 1:
            yield f"MLflow: {folder.name} has {len(parents)} finished parent runs"
        elif {run.data.tags.get("mlflow.parentRunId") for run in cells} != parents:
            yield f"MLflow: {folder.name} has cells under another parent run"
        for run in cells:
            files = {item.path for item in client.list_artifacts(run.info.run_id)}
            if not {RESULT_FILE, REPORT_FILE} <= files:
                yield f"MLflow: {folder.name} cell {run.data.tags['crossbench.cell']}: only {files}"


def half_written(outputs: Path) -> Iterator[str]:
    """Yield the files that were not written to their end."""
    for path in sorted(item for item in outputs.rglob("*") if item.is_file()):
        name, content = path.relative_to(outputs), path.read_bytes()
        if ".partial" in path.name:
            yield f"{name} was left"
        elif path.suffix == ".json":
            try:
                json.loads(content)
            except ValueError:
                yield f"{name} is not complete"
        elif not content.endswith(ENDINGS.get(path.suffix, b"")):
            yield f"{name} is not complete"
        elif not content and path.suffix not in (".log", ".lock", ""):
            yield f"{name} is empty"
