"""Results as pandas data frames: cells from a sweep's folder or from MLflow, requests, scores.

Data frames of cells have one row per cell and the same columns from both sources: `sweep`, `cell`
(its number), `folder`, `cell_id`, `status`, `flags` (joined by commas), `error`, `started_at`, the
configuration by its dotted keys (`backend`, `batch`, `scheduler.max_batch_pairs`), and the metrics
by their names (`throughput/pairs_per_s`, in pairs/s; `latency/p95_ms`). Missing values are NaN or
None. The metrics in CORE_METRICS always have a column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from crossbench.errors import ResultError, TrackingError
from crossbench.measure import catalogue
from crossbench.measure.metric import View
from crossbench.measure.ranking import Verdict
from crossbench.results import (
    QUALITY_FILE,
    RECORDS_FILE,
    RESULT_FILE,
    RunResult,
    Status,
    cell_folders,
    load_records,
    load_result,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.places import outputs_dir
from crossbench.settings.run import default_tracker
from crossbench.system.addresses import bypass_proxy
from crossbench.tracking.mlflow_config import stored_config
from crossbench.tracking.mlflow_format import CELL_TAG, COMPLETE_TAG, FLAGS_TAG, SWEEP_TAG
from crossbench.tracking.mlflow_results import cells_of
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.types import RequestRecord, ScoredPair

if TYPE_CHECKING:
    from mlflow.entities import Run

CORE_METRICS = catalogue.names(View.FRAME)
CELL_COLUMNS = ("sweep", "cell", "folder", "cell_id", "status", "flags", "error", "started_at")


def load_sweep(path: str | Path) -> pd.DataFrame:
    """Load the cells of the sweep in the folder `path`, or a single cell from its folder.

    The column `folder` has the cell's absolute path. A cell without a readable result is a row with
    status `failed` and the reason as its error.

    Raises:
        ResultError: the folder does not exist or contains no cell.
    """
    folder = _existing(path)
    return _frame([_row_of(cell) for cell in _cells_in(folder)])


def load_runs(
    uri: str | None = None, *, experiment: str | None = None, sweep: str | None = None
) -> pd.DataFrame:
    """Load the cells in an MLflow store, oldest first, or only those of one `sweep`.

    `sweep` is the name of its folder, or the id or the name of its MLflow run.
    `uri` is any tracking URI and `experiment` a name; None means the value in
    conf/tracker/mlflow.yaml, which is the store in outputs/. The column `folder` is
    `<sweep>/<number>`, and `run_id` is MLflow's id of the run. Live series are left out.

    Raises:
        TrackingError: the store cannot be reached, or has no such experiment or sweep.
    """
    tracker = _tracker(uri, experiment)
    file = Path(tracker.uri.removeprefix("sqlite:///").partition("?")[0])
    if tracker.uri.startswith("sqlite:///") and not file.exists():  # MLflow would create it
        raise TrackingError(f"the MLflow store {file} does not exist: give the URI of another one")
    runs = tracker.cells()
    if sweep is not None:
        runs = cells_of(tracker, sweep, runs)
    return _frame([_row_of_run(run) for run in runs])


def load_requests(path: str | Path) -> pd.DataFrame:
    """Load every request of a cell's folder, or of all cells in a sweep's folder.

    Columns: `cell` (its number), the fields of RequestRecord (times in seconds since the start of
    the measurement, `tokenize_ms`, `queue_ms`, `infer_ms`, `status`), `latency_ms`, `service_ms`.

    Raises:
        ResultError: the folder does not exist or has no cell with requests.
    """
    folder = _existing(path)
    parts = [_requests_of(cell) for cell in _cells_in(folder) if (cell / RECORDS_FILE).exists()]
    if not parts:
        raise ResultError(
            f"no cell in {folder} has a {RECORDS_FILE}, as none was measured: give another sweep"
        )
    return pd.concat(parts, ignore_index=True)


def load_quality(path: str | Path) -> pd.DataFrame:
    """Load the scores of the quality sample from a cell's folder or all cells of a sweep's folder.

    Columns: `cell` (its number), `query_id`, `passage_id`, `score`, `reference_score`, `relevance`.
    A cell that is the reference has its own scores in both columns; if it scored nothing itself,
    they are the reference scores that other cells of its sweep were compared with. The frame is
    empty if no cell has a quality sample.

    Raises:
        ResultError: the folder does not exist or contains no cell.
    """
    parts = []
    for cell in _cells_in(_existing(path)):
        scores = _scores_of(cell)
        if not scores.empty:
            scores.insert(0, "cell", _number(cell))
            parts.append(scores)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"cell": []})


def latest_sweep(outputs: str | Path | None = None) -> Path:
    """Return the folder of the newest sweep in `outputs`; None means the checkout's outputs/.

    Raises:
        ResultError: there is no sweep.
    """
    folder = Path(outputs) if outputs is not None else outputs_dir()
    results = folder.glob(f"*/*/{RESULT_FILE}")
    sweeps = {result.parent.parent for result in results if result.parent.name.isdecimal()}
    if not sweeps:
        raise ResultError(f"no sweep in {folder}: run one, or give a folder that contains one")
    return max(
        sweeps, key=lambda sweep: max(p.stat().st_mtime for p in sweep.glob("*/result.json"))
    )


def records_of(requests: pd.DataFrame) -> list[RequestRecord]:
    """Convert the rows of a frame from `load_requests` to request records."""
    names = [item.name for item in fields(RequestRecord)]
    rows = requests[names].itertuples(index=False, name=None)
    return [RequestRecord(*row) for row in rows]


def _existing(path: str | Path) -> Path:
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ResultError(
            f"{path} is not a folder: give the folder of a sweep, outputs/<sweep>, or of a cell"
        )
    return folder


def _cells_in(folder: Path) -> list[Path]:
    if (folder / RESULT_FILE).exists():
        return [folder]
    if cells := cell_folders(folder):
        return cells
    sweeps = sorted(path.name for path in folder.iterdir() if path.is_dir() and cell_folders(path))
    hint = "give the folder of a sweep"
    if sweeps:
        hint = f"give one of the sweeps in it, such as {', '.join(sweeps[-3:])}"
    raise ResultError(f"{folder} contains no cell: {hint}")


def _number(cell: Path) -> int:
    return int(cell.name) if cell.name.isdecimal() else 0


def _row_of(cell: Path) -> dict[str, Any]:
    try:
        result = load_result(cell)
    except ResultError as error:
        result = RunResult(Status.FAILED, CellConfig(), "", error=str(error))
    return {
        "sweep": cell.parent.name,
        "cell": _number(cell),
        "folder": str(cell),
        "cell_id": result.cell_id,
        "status": str(result.status),
        "flags": ",".join(result.flags),
        "error": result.error,
        "started_at": result.started_at,
        **_scalars(result.config.comparable.flat),
        **result.metrics,
    }


def _row_of_run(run: Run) -> dict[str, Any]:
    tags = run.data.tags
    sweep, number = tags.get(SWEEP_TAG, ""), tags.get(CELL_TAG)
    metrics = {key: item for key, item in run.data.metrics.items() if not catalogue.is_live(key)}
    settings = stored_config(tags, run.data.params)
    return {
        "sweep": sweep,
        "cell": int(number) if number else None,
        "folder": f"{sweep}/{number}",
        "cell_id": CellConfig(settings).cell_id if tags.get("cell_id") else "",
        "status": tags.get("status", ""),
        "flags": tags.get(FLAGS_TAG, ""),
        "error": tags.get("error"),
        "started_at": tags.get(COMPLETE_TAG, ""),
        **_scalars(settings),
        **metrics,
        "run_id": run.info.run_id,
    }


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Build a frame with the columns in order: identity, configuration, metrics."""
    names = dict.fromkeys(name for row in rows for name in row)
    names |= dict.fromkeys(CORE_METRICS)
    metrics = [name for name in names if "/" in name]
    identity = [*CELL_COLUMNS, *(["run_id"] if "run_id" in names else [])]
    settings = [name for name in names if "/" not in name and name not in identity]
    frame = pd.DataFrame(list(rows), columns=[*identity, *settings, *metrics])
    return frame.astype(dict.fromkeys(metrics, "float64"))


def _scores_of(cell: Path) -> pd.DataFrame:
    """The pairs of a cell's quality sample, one column per field of ScoredPair."""
    scores = _stored_scores(cell)
    checked = _checked(cell)
    if checked is None or checked[0] != Verdict.REFERENCE:
        return scores
    if not scores.empty:
        return scores.assign(reference_score=scores["score"])
    others = [other for other in cell_folders(cell.parent) if other != cell]
    same = [other for other in others if (it := _checked(other)) and it[1:] == checked[1:]]
    found = [part for part in map(_stored_scores, same) if not part.empty]
    if not found:
        return scores
    compared = pd.concat(found).dropna(subset=["reference_score"])
    compared = compared.drop_duplicates(["query_id", "passage_id"], ignore_index=True)
    return compared.assign(score=compared["reference_score"])


def _stored_scores(cell: Path) -> pd.DataFrame:
    file = cell / QUALITY_FILE
    if not file.exists():
        return pd.DataFrame(columns=[item.name for item in fields(ScoredPair)])
    return pd.read_parquet(file)


def _checked(cell: Path) -> tuple[str, Any, Any, Any] | None:
    """The verdict of a cell's quality check, and the model and data set that it is about."""
    try:
        result = load_result(cell)
    except ResultError:
        return None
    model = result.model
    digests = (model.get("digest"), model.get("max_length"), result.dataset.get("digest"))
    return str(result.quality.get("verdict", "")), *digests


def _requests_of(cell: Path) -> pd.DataFrame:
    records = load_records(cell)
    columns = {
        item.name: [getattr(record, item.name) for record in records]
        for item in fields(RequestRecord)
    }
    frame = pd.DataFrame({"cell": _number(cell), **columns})
    frame["latency_ms"] = [record.latency_ms for record in records]
    frame["service_ms"] = [record.service_ms for record in records]
    return frame


def _scalars(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Convert lists and mappings to text, so that frames can be grouped by every column."""
    return {
        key: json.dumps(value) if isinstance(value, list | dict) else value
        for key, value in flat.items()
    }


def _tracker(uri: str | None, experiment: str | None) -> MlflowTracker:
    given = {"uri": uri, "experiment": experiment}
    component = default_tracker().replace(
        **{key: item for key, item in given.items() if item is not None}
    )
    bypass_proxy(str(component.values["uri"]))
    tracker: MlflowTracker = component.build()
    return tracker
