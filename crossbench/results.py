"""RunResult and its files: result.json and the raw data (parquet)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from crossbench.errors import ResultError
from crossbench.settings.cell_config import CellConfig
from crossbench.system.credentials import hide_config, texts_with_credentials
from crossbench.system.files import write_file
from crossbench.system.json_text import parse_json
from crossbench.system.rows import TEXT, load_rows, save_rows
from crossbench.types import QueryQuality, RequestRecord, ScoredPair, Task

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
RESULT_FILE = "result.json"
RECORDS_FILE = "requests.parquet"
QUALITY_FILE = "quality.parquet"
QUERIES_FILE = "quality_queries.parquet"
# The reason in `quality` until the check has ended; the result is written before
UNFINISHED_CHECK = "the check did not finish"
# Old results lack `computes_scores`; this was the only backend without a model at that time
_MODELLESS_BACKEND = "noop"
# Columns are the fields of RequestRecord, ScoredPair and QueryQuality, in the same order
_RECORD_COLUMNS = {
    "index": "int64",
    "due_s": "float64",
    "sent_s": "float64",
    "received_s": "float64",
    "pairs": "int64",
    "tokens": "int64",
    "truncated": "int64",
    "tokenize_ms": "float64",
    "queue_ms": "float64",
    "infer_ms": "float64",
    "status": TEXT,
}
_QUALITY_COLUMNS = {
    "query_id": TEXT,
    "passage_id": TEXT,
    "score": "float32",
    "reference_score": "float32",
    "relevance": "int32",
}
_QUERY_COLUMNS = {
    "query_id": TEXT,
    "pairs": "int64",
    "relevant": "bool",
    "order_matters": "bool",
    "ndcg": "float64",
    "rr": "float64",
    "reference_ndcg": "float64",
    "max_abs_diff": "float64",
    "mean_abs_diff": "float64",
    "tau": "float64",
    "top10_overlap": "float64",
    "same_order": "bool",
}


class Status(StrEnum):
    """How a cell ended."""

    FINISHED = "finished"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"  # this machine lacks a library or device
    UNSUPPORTED = "unsupported"  # the backend does not support the precision or the device

    @property
    def is_failure(self) -> bool:
        """Whether a cell with this status makes the command exit with status 1."""
        return self not in (Status.FINISHED, Status.UNSUPPORTED)


class Failure(StrEnum):
    """Why a failed cell may succeed if it is measured again; other failures would be the same."""

    CRASHED = "crashed"  # its process or its server ended
    TIMED_OUT = "timed out"  # it did not end in time
    INTERRUPTED = "interrupted"  # by Ctrl-C or another stop signal


class Flag(StrEnum):
    """Something that limits what a finished cell's numbers say."""

    OVER_SATURATED = "over-saturated"  # requests were due faster than the server could answer
    CLIENT_BOUND = "client-bound"  # the client was busy, so its own speed was measured
    DISTURBED = "disturbed"  # other work on the machine slowed the cell down


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one cell, without the raw records.

    `metrics` maps metric names (`latency/p50_ms`) to numbers. `series` maps the name of a live
    series (`pairs_per_s`, or `texts_per_s` if the cell embeds) to one value per window; `time_s`
    holds the windows' ends in seconds since the start of the measurement. `model`, `dataset` and
    `environment` describe the served model, the data set and the machine. `quality` describes the
    quality check, its verdict (`measure.ranking.Verdict`) and the reason. `warnings` are sentences
    about anything that affects how to read the numbers. `end` says why the measurement ended (one
    of `load.stop.End`; empty in old results). `failure` is the `Failure` of a failed cell that may
    succeed if it is measured again, else empty. `flags` maps each `Flag` to its reason.
    `steps` are those of a ramp, each with its `label`, `start_s` and `end_s`.
    """

    status: Status
    config: CellConfig
    cell_id: str
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    end: str = ""
    failure: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    started_at: str = ""  # ISO 8601, UTC

    @property
    def task(self) -> Task:
        """The task that the cell measured."""
        return self.config.task

    @property
    def computes_scores(self) -> bool:
        """Whether a model computed the scores. If not, only overhead was measured."""
        recorded = self.model.get("computes_scores")
        if recorded is not None:
            return bool(recorded)
        # Old results lack the value, and for a cell that failed early only the config is known
        backend = self.model.get("backend", self.config.value("backend"))
        return bool(backend != _MODELLESS_BACKEND)


def save_result(result: RunResult, folder: Path) -> Path:
    """Write `result.json` into `folder` atomically, without credentials; NaN becomes null.

    Raises:
        NotWritten: it cannot be written; `parse_result` reads the content of the error.
    """
    values = {item.name: getattr(result, item.name) for item in fields(RunResult)}
    config = hide_config(result.config.document)
    document = {"schema_version": SCHEMA_VERSION, **values, "config": config}
    document = hide_config(document, given=texts_with_credentials(result.config.document))
    path = folder / RESULT_FILE
    text = json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n"
    # Non-UTF-8 bytes of the command line are surrogates in Python; write them as "?"
    write_file(path, text.encode("utf-8", "replace"))
    return path


# Parts of a result whose texts are kept as they are
_OF_SEVERAL_LINES = frozenset({"config", "error", "series", "metrics"})


def load_result(folder: Path) -> RunResult:
    """Read `folder`/result.json of this schema version or of version 1.

    The cell's id is recomputed from its config, because the id of version 1 also depended on
    irrelevant values, such as the module path of a class.

    Raises:
        ResultError: the file is missing, is not valid JSON, or has another schema version.
    """
    path = folder / RESULT_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ResultError(f"no {RESULT_FILE} in {folder}: did the cell run to its end?") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error}): run the cell again") from error
    return parse_result(content, path)


def parse_result(content: bytes, path: Path) -> RunResult:
    """Return the result that the file `path` has as its content.

    Raises:
        ResultError: see `load_result`.
    """
    try:
        document = parse_json(content.decode("utf-8"))
    except ValueError as error:
        raise ResultError(f"{path} is not valid JSON ({error}): run the cell again") from error
    if not isinstance(document, dict):
        raise ResultError(f"{path} does not contain a result: run the cell again")
    version = document.pop("schema_version", None)
    if version not in READABLE_VERSIONS:
        raise ResultError(
            f"{path} has schema version {version}, but this version of crossbench reads only "
            f"{' and '.join(map(str, READABLE_VERSIONS))}: "
            "use the version that wrote the file, or run the cell again"
        )
    known = {item.name for item in fields(RunResult)}
    document = {
        key: value if key in _OF_SEVERAL_LINES else _one_line(value)
        for key, value in document.items()
        if key in known
    }
    try:
        config = CellConfig(document["config"])
        own = {"status": Status(document["status"]), "config": config, "cell_id": config.cell_id}
        return RunResult(**{**document, **own})
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{path} is incomplete ({error}): run the cell again") from error


def _one_line(value: Any) -> Any:
    """Return a value with every text on one line: in a report, a line may begin a heading."""
    if isinstance(value, str):
        return " ".join(value.splitlines())
    if isinstance(value, dict):
        return {key: _one_line(item) for key, item in value.items()}
    return [_one_line(item) for item in value] if isinstance(value, list) else value


def load_cell(folder: Path) -> tuple[RunResult, list[RequestRecord]]:
    """Return a cell's result and raw records. Unreadable records become a warning in the result.

    Raises:
        ResultError: the result is missing or unreadable.
    """
    result = load_result(folder)
    try:
        return result, load_records(folder)
    except ResultError as error:
        return replace(result, warnings=[*result.warnings, str(error)]), []


def cell_folders(sweep: Path) -> list[Path]:
    """Return the numbered cell folders of a sweep, in numerical order."""
    numbered = [path for path in sweep.iterdir() if path.is_dir() and path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name))


def save_records(records: Sequence[RequestRecord], folder: Path) -> Path:
    """Write `requests.parquet` into `folder`, with one row per request and one column per field."""
    return save_rows(records, _RECORD_COLUMNS, folder / RECORDS_FILE)


def load_records(folder: Path) -> list[RequestRecord]:
    """Read `folder`/requests.parquet. Returns an empty list if the file does not exist.

    Raises:
        ResultError: the file is incomplete or damaged.
    """
    return load_rows(folder / RECORDS_FILE, RequestRecord, [*_RECORD_COLUMNS])


def save_quality(pairs: Sequence[ScoredPair], folder: Path) -> Path:
    """Write `quality.parquet` into `folder`, with one row per pair of the quality check."""
    return save_rows(pairs, _QUALITY_COLUMNS, folder / QUALITY_FILE)


def load_quality(folder: Path) -> list[ScoredPair]:
    """Read `folder`/quality.parquet. Returns an empty list if the file does not exist.

    Raises:
        ResultError: the file is incomplete or damaged.
    """
    return load_rows(folder / QUALITY_FILE, ScoredPair, [*_QUALITY_COLUMNS])


def save_queries(queries: Sequence[QueryQuality], folder: Path) -> Path:
    """Write `quality_queries.parquet` into `folder`, one row per query of the quality check."""
    return save_rows(queries, _QUERY_COLUMNS, folder / QUERIES_FILE)


def load_queries(folder: Path) -> list[QueryQuality]:
    """Read `folder`/quality_queries.parquet. Returns an empty list if the file does not exist.

    Raises:
        ResultError: the file is incomplete or damaged.
    """
    return load_rows(folder / QUERIES_FILE, QueryQuality, [*_QUERY_COLUMNS])


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by None, since JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
