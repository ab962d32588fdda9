"""RunResult and its files: result.json (versioned), requests.parquet and quality.parquet (raw)."""

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
from crossbench.system.files import atomic_write
from crossbench.system.rows import TEXT, load_rows, save_rows
from crossbench.types import RequestRecord, ScoredPair, Task

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
RESULT_FILE = "result.json"
RECORDS_FILE = "requests.parquet"
QUALITY_FILE = "quality.parquet"
_FLOOR = "noop"  # the one backend without a model when results did not say which has none
# The fields of RequestRecord and of ScoredPair, in their order
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


class Status(StrEnum):
    """How a cell ended."""

    FINISHED = "finished"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"  # something is missing on this machine
    UNSUPPORTED = "unsupported"  # the backend has no such precision or device

    @property
    def is_failure(self) -> bool:
        """Whether the command that measured such a cell ends with status 1."""
        return self not in (Status.FINISHED, Status.UNSUPPORTED)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything that one cell found out, but for its raw records.

    `metrics` maps the contract's names (`latency/p50_ms`) to numbers. `series` maps a live series'
    name (`pairs_per_s`, `texts_per_s` where it embeds) to values per window; its key `time_s` holds
    the windows' ends in seconds since the start of the measurement. `model`, `dataset` and
    `environment` describe what was served, what was sent and where. `quality` says what was checked
    of the ranking and the verdict (`measure.ranking.Verdict`) with its reason. `warnings` are
    sentences that a reader must know.
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
    started_at: str = ""  # ISO 8601, UTC

    @property
    def task(self) -> Task:
        """What the cell asked of the server."""
        return self.config.task

    @property
    def computes_scores(self) -> bool:
        """Whether a model computed what was served; else the numbers are the harness's own."""
        noted = self.model.get("computes_scores")
        if noted is not None:
            return bool(noted)
        # A result from before it was noted, or one of which only the config is known
        return bool(self.model.get("backend", self.config.value("backend")) != _FLOOR)


def save_result(result: RunResult, folder: Path) -> Path:
    """Write `result.json` into `folder`, whole or not at all; not-a-number becomes null."""
    kept = {item.name: getattr(result, item.name) for item in fields(RunResult)}
    document = {"schema_version": SCHEMA_VERSION, **kept, "config": result.config.document}
    path = folder / RESULT_FILE
    text = json.dumps(_finite(document), indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as partial:
        # Bytes of a command line that is no UTF-8 are surrogates, which become question marks
        partial.write_bytes(text.encode("utf-8", "replace"))
    return path


def load_result(folder: Path) -> RunResult:
    """Read `folder`/result.json, of this schema version or of version 1.

    The cell's id is computed afresh from its config, since version 1 made it of what decides
    nothing, such as where the code of a class lies.

    Raises:
        ResultError: there is no such file, it is not JSON, or it has another schema version.
    """
    path = folder / RESULT_FILE
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ResultError(f"no {RESULT_FILE} in {folder}: did the cell run to its end?") from None
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not valid JSON ({error}): run the cell again") from error
    if not isinstance(document, dict):
        raise ResultError(f"{path} holds no result: run the cell again")
    version = document.pop("schema_version", None)
    if version not in READABLE_VERSIONS:
        raise ResultError(
            f"{path} has schema version {version}, this crossbench reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}: "
            "use the crossbench that wrote it, or run the cell again"
        )
    known = {item.name for item in fields(RunResult)}
    document = {key: value for key, value in document.items() if key in known}
    try:
        config = CellConfig(document["config"])
        own = {"status": Status(document["status"]), "config": config, "cell_id": config.cell_id}
        return RunResult(**{**document, **own})
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{path} is no whole result ({error}): run the cell again") from error


def load_cell(folder: Path) -> tuple[RunResult, list[RequestRecord]]:
    """A cell's result and its raw records; without the records, its numbers and a warning.

    Raises:
        ResultError: there is no readable result.
    """
    result = load_result(folder)
    try:
        return result, load_records(folder)
    except ResultError as error:
        return replace(result, warnings=[*result.warnings, str(error)]), []


def cell_folders(sweep: Path) -> list[Path]:
    """The numbered folders of a sweep's cells, in their order."""
    numbered = [path for path in sweep.iterdir() if path.is_dir() and path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name))


def save_records(records: Sequence[RequestRecord], folder: Path) -> Path:
    """Write `requests.parquet` into `folder`: one row per request, one column per field."""
    return save_rows(records, _RECORD_COLUMNS, folder / RECORDS_FILE)


def load_records(folder: Path) -> list[RequestRecord]:
    """Read `folder`/requests.parquet; no such file is an empty list: the cell did not measure.

    Raises:
        ResultError: the file is not whole.
    """
    return load_rows(folder / RECORDS_FILE, RequestRecord, [*_RECORD_COLUMNS])


def save_quality(pairs: Sequence[ScoredPair], folder: Path) -> Path:
    """Write `quality.parquet` into `folder`: one row per pair of the quality check."""
    return save_rows(pairs, _QUALITY_COLUMNS, folder / QUALITY_FILE)


def load_quality(folder: Path) -> list[ScoredPair]:
    """Read `folder`/quality.parquet, query by query; no such file is an empty list.

    Raises:
        ResultError: the file is not whole.
    """
    return load_rows(folder / QUALITY_FILE, ScoredPair, [*_QUALITY_COLUMNS])


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: both become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
