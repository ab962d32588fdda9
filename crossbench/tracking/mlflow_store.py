"""Runs in an MLflow store: opened, written, ended, found again."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crossbench.errors import TrackingError
from crossbench.measure.catalogue import live_name
from crossbench.measure.probes import environment
from crossbench.results import RunResult, Status
from crossbench.settings.flatten import without_credentials
from crossbench.tracking import mlflow_format as form
from crossbench.tracking import mlflow_sqlite as sqlite
from crossbench.tracking.mlflow_registry import link_version
from crossbench.tracking.protocol import Place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RUNS_PER_PAGE = 1000


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that the store has. `number` is None for a sweep's own run; `complete` says which
    result was written whole, empty while something is missing."""

    run_id: str
    number: int | None
    parent_id: str | None
    host: str
    complete: str


@dataclass(frozen=True)
class MlflowTracker:
    """Runs in an MLflow store, always by their explicit ids: there is no active run to leak.

    `uri` is any tracking URI. `artifact_location` is used when the experiment is created; one on
    this machine only for an embedded store, as a server keeps artifacts where it was told to.
    `registered_model` names a model of the store's registry, see `mlflow_registry.py`; None leaves
    the registry alone.
    """

    name: str
    uri: str
    experiment: str
    artifact_location: str | None
    registered_model: str | None
    http_timeout_s: int

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        return self.open_sweep(name, overrides, environment(), None)

    def open_sweep(
        self,
        name: str,
        overrides: Sequence[str],
        found: Mapping[str, object],
        start_s: float | None,
    ) -> str:
        """Open a sweep's run that began at `start_s` (Unix seconds, None: now) on the machine that
        `environment()` has `found`."""
        with self._errors():
            tags = {form.SWEEP_TAG: name, **form.environment_tags(found)}
            run_id = self._create_run(name, tags, start_s)
            self._log_params(run_id, form.sweep_params(overrides))
            return run_id

    def start_cell(self, name: str, parent_id: str | None, place: Place) -> str | None:
        return self.open_cell(name, parent_id, place, platform.node(), None)

    def open_cell(
        self, name: str, parent_id: str | None, place: Place, host: str, start_s: float | None
    ) -> str:
        """Open a cell's run that began at `start_s` (Unix seconds, None: now) on `host`."""
        tags = {
            form.SWEEP_TAG: place.sweep,
            form.CELL_TAG: str(place.number),
            "host": host,
            **({form.PARENT_TAG: parent_id} if parent_id else {}),
        }
        with self._errors():
            return self._create_run(name, tags, start_s)

    def finish_cell(
        self,
        run_id: str,
        result: RunResult,
        folder: Path,
        interrupted: bool = False,
        end_s: float | None = None,
    ) -> None:
        """As the protocol has it; writing the same once more changes nothing. `end_s` is when the
        cell ended (Unix seconds, None: now)."""
        # An unsupported cell has no numbers to compare either: its tag tells it from a breakdown
        ended = "FINISHED" if result.status is Status.FINISHED else "FAILED"
        with self._errors(), self._ending(run_id, "KILLED" if interrupted else ended, end_s):
            self._log_tags(run_id, form.cell_tags(result))
            self._log_params(run_id, form.flatten_params(result.config))
            started_at = form.unix(result.started_at) or time.time()
            self._log_metrics(run_id, form.cell_metrics(result.metrics), started_at)
            if result.series:
                self._log_live(run_id, result.series, started_at)
            if result.dataset:
                self._client.log_inputs(run_id, [form.dataset_input(result.dataset)])
            self._log_artifacts(run_id, folder)
            if self.registered_model and result.status is Status.FINISHED:
                version = link_version(self._client, self.registered_model, run_id, result)
                self._log_tags(run_id, {"crossbench.model_version": version})
            self._log_tags(run_id, {form.COMPLETE_TAG: result.started_at})

    def finish_sweep(
        self,
        run_id: str,
        results: Sequence[RunResult],
        folder: Path,
        interrupted: bool,
        end_s: float | None = None,
    ) -> None:
        """As the protocol has it; `end_s` is when the sweep ended (Unix seconds, None: now)."""
        failed = any(result.status.is_failure for result in results)
        ended = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
        with self._errors(), self._ending(run_id, ended, end_s):
            started_at = max((form.unix(result.started_at) for result in results), default=0.0)
            self._log_metrics(run_id, form.sweep_metrics(results), started_at)
            pages = {
                run.number: f"#/experiments/{self._experiment_id}/runs/{run.run_id}"
                for run in self.find(folder.resolve().name)
                if run.number is not None and run.parent_id == run_id
            }
            note = form.sweep_note(folder / "report.md", run_id, pages)
            self._log_tags(run_id, {form.NOTE_TAG: note} if note else {})
            self._log_artifacts(run_id, folder)
            self._log_tags(run_id, {form.COMPLETE_TAG: str(len(results))})

    def find(self, sweep: str) -> list[StoredRun]:
        """The runs of the sweep of this name and of its cells, the oldest first."""
        mark = '"' if "'" in sweep else "'"
        with self._errors():
            return [
                StoredRun(
                    run_id=run.info.run_id,
                    number=int(tags[form.CELL_TAG]) if form.CELL_TAG in tags else None,
                    parent_id=tags.get(form.PARENT_TAG),
                    host=tags.get("host", ""),
                    complete=tags.get(form.COMPLETE_TAG, ""),
                )
                for run in self._search(f"tags.`{form.SWEEP_TAG}` = {mark}{sweep}{mark}")
                for tags in [run.data.tags]
            ]

    def set_parent(self, run_id: str, parent_id: str) -> None:
        """Put a cell's run, opened while its sweep's could not be, under that."""
        with self._errors():
            self._client.set_tag(run_id, form.PARENT_TAG, parent_id)

    def cells(self) -> list[Run]:
        """MLflow's own runs of all cells, the oldest first.

        Raises:
            TrackingError: the store is out of reach or has no experiment of that name.
        """
        with self._errors():
            if self._client.get_experiment_by_name(self.experiment) is None:
                names = sorted(found.name for found in self._client.search_experiments())
                raise TrackingError(
                    f"MLflow at {without_credentials(self.uri)} has no experiment "
                    f"{self.experiment!r}: what it has is {', '.join(names) or 'none'}"
                )
            return [run for run in self._search("") if "cell_id" in run.data.tags]

    def _search(self, condition: str) -> list[Run]:
        found: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                condition,
                max_results=_RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found

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
        # It prints the traceback of what it raises, and a failure has our own words
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        path = sqlite.path_of(self.uri)
        if path is None:
            return MlflowClient(tracking_uri=self.uri)
        return sqlite.open_store(path, lambda uri: MlflowClient(tracking_uri=uri))

    @cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            tags = form.experiment_tags(round(time.time() * 1e3))
            try:
                created: str = self._client.create_experiment(
                    self.experiment, self._location(), tags
                )
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
        return str(Path(self.artifact_location).expanduser().resolve()) if embedded else None

    def _create_run(self, name: str, tags: Mapping[str, str], start_s: float | None) -> str:
        standard = {"mlflow.source.name": "crossbench", "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
            standard["mlflow.user"] = getpass.getuser()
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(start_s),
            tags={**standard, **tags},
            run_name=name,
        )
        run_id: str = run.info.run_id
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for chunk in form.chunks(list(params.items()), form.PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in chunk])

    def _log_live(
        self, run_id: str, series: Mapping[str, Sequence[float]], started_at: float
    ) -> None:
        """Write series that share the key `time_s`; `started_at` is their zero, Unix seconds."""
        from mlflow.entities import Metric

        points = [
            Metric(
                live_name(name), value, round((started_at + time_s) * 1e3), form.live_step(time_s)
            )
            for name, values in series.items()
            if name != "time_s"
            for time_s, value in zip(series["time_s"], values, strict=True)
            if form.is_number(value)
        ]
        for chunk in form.chunks(points, form.METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=chunk)

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float], at_s: float) -> None:
        """Written twice at the same time, a value stands once in the store's history."""
        from mlflow.entities import Metric

        values = [Metric(key, value, round(at_s * 1e3), 0) for key, value in metrics.items()]
        for chunk in form.chunks(values, form.METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=chunk)

    def _log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(key, form.shorten(value, form.MAX_TAG)) for key, value in tags.items()]
        self._client.log_batch(run_id, tags=values)

    def _log_artifacts(self, run_id: str, folder: Path) -> None:
        for path in form.artifacts(folder):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            else:
                self._client.log_artifact(run_id, str(path))

    @contextlib.contextmanager
    def _ending(self, run_id: str, status: str, end_s: float | None) -> Iterator[None]:
        """End the run with `status` even where a write fails: none may seem to run for ever."""
        try:
            yield
        finally:
            self._client.set_terminated(run_id, status, _milliseconds(end_s))

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
            where = without_credentials(self.uri)
            what = without_credentials(str(error)).strip() or type(error).__name__
            path = sqlite.path_of(self.uri)
            if path is not None and (remedy := sqlite.what_mends(path, what)):
                raise TrackingError(remedy) from error
            see = "the server runs" if path is None else f"{path} can be read and written"
            raise TrackingError(
                f"MLflow at {where} failed: {form.shorten(what, 1000)}; see that {see} "
                "and tracker.uri is right, or measure without it: tracker=none"
            ) from error


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e3)
