"""Runs that people compare: MLflow, or nothing, behind a narrow Tracker protocol."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from crossbench.errors import TrackingError
from crossbench.measure.probes import environment
from crossbench.results import QUALITY_FILE, RECORDS_FILE, RESULT_FILE, RunResult, Status

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

ARTIFACTS = (
    "report.md", RESULT_FILE, RECORDS_FILE, QUALITY_FILE, "config.yaml", "cell.log",
    "results.csv", "plots", "dashboard.png",
)  # fmt: skip
# What MLflow's stores and its REST API take
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_DIGEST = 250, 6000, 8000, 36
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 25  # 100 are allowed, but so many long ones exceed the API's 1 MB a call

_NOTE_METRICS = (
    ("throughput/pairs_per_s", "pairs/s"),
    ("latency/p50_ms", "p50, ms"),
    ("latency/p95_ms", "p95, ms"),
    ("memory/rss_peak_mb", "peak resident set, MB"),
    ("memory/model_mb", "the model's weights, MB"),
)
T = TypeVar("T")
_UNFIT_IN_KEY = re.compile(r"[^\w\-. ]", re.ASCII)  # MLflow reads a slash as a path
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class Tracker(Protocol):
    """Where runs are kept. Every method raises TrackingError when that place fails."""

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        """Open the parent run of a sweep; `overrides` are its command line. Returns the run's id.

        None where nothing is tracked; such a run is not finished either.
        """
        ...

    def start_cell(self, name: str, parent_id: str | None) -> str | None:
        """Open a cell's run, under its sweep's where there is one. Returns the run's id."""
        ...

    def log_live(
        self, run_id: str, series: Mapping[str, Sequence[float]], started_at: float
    ) -> None:
        """Write series that share the key `time_s`; `started_at` is their zero, Unix seconds."""
        ...

    def finish_cell(
        self, run_id: str, result: RunResult, folder: Path, interrupted: bool = False
    ) -> None:
        """Write all that the cell found out, with the files in its `folder`, and end its run."""
        ...

    def finish_sweep(self, run_id: str, folder: Path, failed: bool, interrupted: bool) -> None:
        """Write the sweep's report and end the parent run."""
        ...


@dataclass(frozen=True)
class NoTracker:
    """Keeps nothing: the results on disk are all there is."""

    name: str

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        return None

    def start_cell(self, name: str, parent_id: str | None) -> str | None:
        return None

    def log_live(
        self, run_id: str, series: Mapping[str, Sequence[float]], started_at: float
    ) -> None:
        """Nothing to write."""

    def finish_cell(
        self, run_id: str, result: RunResult, folder: Path, interrupted: bool = False
    ) -> None:
        """Nothing to end."""

    def finish_sweep(self, run_id: str, folder: Path, failed: bool, interrupted: bool) -> None:
        """Nothing to end."""


@dataclass(frozen=True)
class MlflowTracker:
    """Runs in an MLflow store, always by their explicit ids: there is no active run to leak.

    `uri` is any tracking URI. `artifact_location` is used when the experiment is created; one on
    this machine only for an embedded store, as a server keeps artifacts where it was told to.
    """

    name: str
    uri: str
    experiment: str
    artifact_location: str | None
    http_timeout_s: int

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        with self._errors():
            swept = dict(item.partition("=")[::2] for item in overrides)
            params = flatten_params({key.lstrip("+~"): value for key, value in swept.items()})
            run_id = self._create_run(name, environment_tags(environment()))
            self._log_params(run_id, params)
            return run_id

    def start_cell(self, name: str, parent_id: str | None) -> str | None:
        with self._errors():
            return self._create_run(name, {"mlflow.parentRunId": parent_id} if parent_id else {})

    def log_live(
        self, run_id: str, series: Mapping[str, Sequence[float]], started_at: float
    ) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(f"live/{name}", value, round((started_at + time_s) * 1e3), round(time_s))
            for name, values in series.items()
            if name != "time_s"
            for time_s, value in zip(series["time_s"], values, strict=True)
            if _is_number(value)
        ]
        with self._errors():
            for chunk in _chunks(points, METRICS_PER_CALL):
                self._client.log_batch(run_id, metrics=chunk)

    def finish_cell(
        self, run_id: str, result: RunResult, folder: Path, interrupted: bool = False
    ) -> None:
        tags = {
            **environment_tags(result.environment),
            "status": result.status.value,
            "cell_id": result.cell_id,
            "mlflow.note.content": _cell_note(result),
        }
        if result.error:
            tags["error"] = result.error
        if result.quality:
            tags["quality"] = str(result.quality["verdict"])
            tags["quality.reason"] = str(result.quality["reason"])
        # An unsupported cell has no numbers to compare either: its tag tells it from a breakdown
        ended = "FINISHED" if result.status is Status.FINISHED else "FAILED"
        with self._errors(), self._ending(run_id, "KILLED" if interrupted else ended):
            self._log_tags(run_id, tags)
            self._log_params(run_id, flatten_params(result.config))
            self._log_metrics(run_id, result.metrics)
            if result.series:
                self.log_live(run_id, result.series, _unix(result.started_at))
            if result.dataset:
                self._client.log_inputs(run_id, [_dataset_input(result.dataset)])
            self._log_artifacts(run_id, folder)

    def finish_sweep(self, run_id: str, folder: Path, failed: bool, interrupted: bool) -> None:
        ended = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
        with self._errors(), self._ending(run_id, ended):
            note = _sweep_note(folder / "report.md")
            self._log_tags(run_id, {"mlflow.note.content": note} if note else {})
            self._log_artifacts(run_id, folder)

    @cached_property
    def _client(self) -> MlflowClient:
        # MLflow takes these from the environment alone, some at its import and some at each call
        settings = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 keep a sweep waiting for minutes
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(self.http_timeout_s),
        }
        for key, value in settings.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):  # they tell of every table of a fresh store
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self.uri)

    @cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            location = self._location()
            try:
                created: str = self._client.create_experiment(self.experiment, location)
                return created
            except Exception:  # another process may have been first
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment {self.experiment!r} was deleted: restore it, or choose "
                "another name with tracker.experiment=NAME"
            )
        experiment_id: str = found.experiment_id
        return experiment_id

    def _location(self) -> str | None:
        """Where artifacts of a new experiment go; None leaves it to the server."""
        if self.artifact_location is None or "://" in self.artifact_location:
            return self.artifact_location
        embedded = self.uri.startswith(("sqlite:", "file:")) or "://" not in self.uri
        return str(Path(self.artifact_location).resolve()) if embedded else None

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        standard = {"mlflow.source.name": "crossbench", "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
            standard["mlflow.user"] = getpass.getuser()
        run = self._client.create_run(self._experiment_id, tags={**standard, **tags}, run_name=name)
        run_id: str = run.info.run_id
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for chunk in _chunks(list(params.items()), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in chunk])

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = round(time.time() * 1e3)
        values = [
            Metric(key, value, now_ms, 0) for key, value in metrics.items() if _is_number(value)
        ]
        for chunk in _chunks(values, METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=chunk)

    def _log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(key, shorten(value, MAX_TAG)) for key, value in tags.items()]
        self._client.log_batch(run_id, tags=values)

    def _log_artifacts(self, run_id: str, folder: Path) -> None:
        for path in (folder / name for name in ARTIFACTS):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            elif path.exists():
                self._client.log_artifact(run_id, str(path))

    @contextlib.contextmanager
    def _ending(self, run_id: str, status: str) -> Iterator[None]:
        """End the run with `status` even where a write fails: none may seem to run for ever."""
        try:
            yield
        finally:
            self._client.set_terminated(run_id, status)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn whatever the store raises into TrackingError.

        Stores raise MLflow's, SQLAlchemy's, HTTP's, cloud vendors' and the system's own errors.
        """
        try:
            yield
        except TrackingError:
            raise
        except Exception as error:
            where = _CREDENTIALS.sub("***@", self.uri)
            what = _CREDENTIALS.sub("***@", str(error)).strip() or type(error).__name__
            raise TrackingError(
                f"MLflow at {where} failed: {shorten(what, 300)}; see that the server runs and "
                "tracker.uri is right, or measure without it: tracker=none"
            ) from error


def flatten_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Every value of a config by its dotted key, as MLflow takes it; a group's key has its `name`.

    Characters that a key may not have become `_`, credentials in URIs `***`, and what is too long
    is cut with a mark.
    """
    flat: dict[str, str] = {}
    for path, value in _leaves(config):
        key = _UNFIT_IN_KEY.sub("_", path.removesuffix(".name"))[: MAX_KEY - 10].strip(" .") or "_"
        while key in flat:  # two keys may have become one
            key += "_"
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        flat[key] = shorten(_CREDENTIALS.sub("***@", text), MAX_PARAM)
    return flat


def environment_tags(found: Mapping[str, Any]) -> dict[str, str]:
    """Tags from what `environment()` found: commit, machine and versions."""
    tags = {
        key: text
        for key in ("host", "os", "python", "cpu", "cores_usable", "memory_total_mb", "git_dirty")
        if (text := _text(found.get(key)))
    }
    if gpus := found.get("gpus"):
        tags["gpus"] = ", ".join(map(str, gpus))
    if commit := found.get("git_commit"):
        tags |= {"mlflow.source.git.commit": str(commit), "git_commit": str(commit)}
    for library, version in (found.get("versions") or {}).items():
        tags[f"version.{library}"] = str(version)
    return tags


def shorten(text: str, most: int) -> str:
    """At most `most` characters; what is cut is told in the text itself."""
    if len(text) <= most:
        return text
    mark = f" … [{len(text)} characters]"
    return text[: most - len(mark)] + mark


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _unix(iso: str) -> float:
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:  # a result without its start
        return time.time()


def _cell_note(result: RunResult) -> str:
    lines = [f"**{result.status}**" + (f": {result.error}" if result.error else "")]
    rows = [
        f"| {label} | {result.metrics[key]:.1f} |"
        for key, label in _NOTE_METRICS
        if _is_number(result.metrics.get(key))
    ]
    lines += ["", "| | |", "|---|---:|", *rows] if rows else []
    lines += [""] if result.warnings else []
    return "\n".join([*lines, *(f"- {warning}" for warning in result.warnings)])


def _sweep_note(report: Path) -> str:
    """The sweep's report without its pictures, whose paths lead nowhere from MLflow's page."""
    if not report.exists():
        return ""
    lines = report.read_text("utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("!["))


def _dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = str(dataset.get("source", ""))
    is_local = bool(source) and Path(source).exists()
    profile = {
        key: value for key, value in dataset.items() if key not in ("name", "source", "digest")
    }
    columns = [{"type": "string", "name": name, "required": True} for name in ("query", "passage")]
    entity = Dataset(
        name=shorten(str(dataset["name"]), 500),
        digest=str(dataset["digest"])[:MAX_DIGEST],
        # MLflow resolves `local` to a folder; what is made up or fetched is described by its code
        source_type="local" if is_local else "code",
        source=json.dumps(
            {"uri": source} if is_local else {"tags": {"mlflow.source.name": source}}
        ),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile, default=str),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "benchmark")])
