"""The MLflow tracker: creates, writes, ends and finds runs in an MLflow store."""

from __future__ import annotations

import contextlib
import getpass
import logging
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crossbench.errors import ConfigError, TrackingError
from crossbench.measure.catalogue import live_name
from crossbench.measure.probes import environment
from crossbench.results import RunResult, Status
from crossbench.system.credentials import hide, hide_argument
from crossbench.tracking import mlflow_format as fmt
from crossbench.tracking import mlflow_sqlite as sqlite
from crossbench.tracking.mlflow_registry import link_version
from crossbench.tracking.protocol import CellRef
from crossbench.tracking.run_process import RunProcess

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RUNS_PER_PAGE = 1000


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run in the store.

    `number` is the cell's number, None for a sweep's parent run. `complete` identifies the result
    that was completely written; it is empty if something is missing. `upload` is the name that an
    upload has given to a parent run, empty for other runs.
    """

    run_id: str
    number: int | None
    parent_id: str | None
    host: str
    complete: str
    upload: str


@dataclass(frozen=True)
class MlflowTracker:
    """Stores runs in MLflow. Runs are addressed by their ids, so there is no active run.

    `uri` is any tracking URI. `artifact_location` applies when the experiment is created; a local
    path applies only to an embedded store, as a server has its own location. `registered_model` is
    a model in the store's registry, see `mlflow_registry.py`; None does not use the registry. A
    server has `timeout_s` seconds for each part of an answer; `Tracking` limits whole calls.
    """

    name: str
    uri: str
    experiment: str
    artifact_location: str | None
    registered_model: str | None
    timeout_s: float

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ConfigError(
                f"tracker.timeout_s must be above 0, got {self.timeout_s}: give for example "
                "tracker.timeout_s=20"
            )

    def prepare(self) -> None:
        with self._errors():
            self._configure()
            if sqlite.path_of(self.uri) is not None:
                _ = self._client

    def start_sweep(self, name: str, overrides: Sequence[str]) -> str | None:
        run_id = self.open_sweep(name, environment(), None)
        self.log_overrides(run_id, overrides)
        return run_id

    def open_sweep(
        self, name: str, found: Mapping[str, object], start_s: float | None, upload: str = ""
    ) -> str:
        """Open a sweep's run that started at `start_s` (Unix seconds, None: now).

        `found` is the result of `environment()` on the machine that ran the sweep, and `upload` a
        name by which a later upload finds the run.
        """
        tags = {fmt.SWEEP_TAG: name, **fmt.environment_tags(found)}
        with self._errors():
            return self._create_run(
                name, tags | ({fmt.UPLOAD_TAG: upload} if upload else {}), start_s
            )

    def log_overrides(self, run_id: str, overrides: Sequence[str]) -> None:
        """Write the command line of a sweep as the params of its run."""
        with self._errors():
            self._log_params(run_id, fmt.sweep_params(overrides))

    def start_cell(self, name: str, parent_id: str | None, cell: CellRef) -> str | None:
        return self.open_cell(name, parent_id, cell, platform.node(), None)

    def open_cell(
        self, name: str, parent_id: str | None, cell: CellRef, host: str, start_s: float | None
    ) -> str:
        """Open a cell's run that started at `start_s` (Unix seconds, None: now) on `host`."""
        tags = {
            fmt.SWEEP_TAG: cell.sweep,
            fmt.CELL_TAG: str(cell.number),
            "host": host,
            **({fmt.PARENT_TAG: parent_id} if parent_id else {}),
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
        *,
        whole: bool = True,
    ) -> None:
        """See `Tracker`. `end_s` is when the cell ended (Unix seconds, None: now).

        Writing the same result again changes nothing.
        """
        # An unsupported cell has no metrics either; the tag `status` tells it from a failure
        ended = "FINISHED" if result.status is Status.FINISHED else "FAILED"
        with (
            self._errors(),
            self._complete(run_id, result.started_at) if whole else contextlib.nullcontext(),
            self._ending(run_id, "KILLED" if interrupted else ended, end_s),
        ):
            self._log_tags(run_id, fmt.cell_tags(result))
            self._log_params(run_id, fmt.flatten_params(result.config))
            started_at = fmt.unix(result.started_at) or time.time()
            self._log_metrics(run_id, fmt.cell_metrics(result.metrics), started_at)
            if result.series:
                self._log_live(run_id, result.series, started_at)
            if result.dataset:
                self._client.log_inputs(run_id, [fmt.dataset_input(result.dataset)])
            self._log_artifacts(run_id, folder)
            if self.registered_model and result.status is Status.FINISHED:
                version = link_version(self._client, self.registered_model, run_id, result)
                self._log_tags(run_id, {"crossbench.model_version": version})

    def finish_sweep(
        self,
        run_id: str,
        results: Sequence[RunResult],
        folder: Path,
        interrupted: bool,
        end_s: float | None = None,
    ) -> None:
        """See `Tracker`. `end_s` is when the sweep ended (Unix seconds, None: now)."""
        failed = any(result.status.is_failure for result in results)
        ended = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
        with (
            self._errors(),
            self._complete(run_id, str(len(results))),
            self._ending(run_id, ended, end_s),
        ):
            started_at = max((fmt.unix(result.started_at) for result in results), default=0.0)
            self._log_metrics(run_id, fmt.sweep_metrics(results), started_at)
            pages = {
                run.number: f"#/experiments/{self._experiment_id}/runs/{run.run_id}"
                for run in self.find(folder.resolve().name)
                if run.number is not None and run.parent_id == run_id
            }
            note = fmt.sweep_note(folder / "report.md", run_id, pages)
            self._log_tags(run_id, {fmt.NOTE_TAG: note} if note else {})
            self._log_artifacts(run_id, folder)

    def find(self, sweep: str) -> list[StoredRun]:
        """The parent run and the cells' runs of the sweep with this name, oldest first."""
        quote = '"' if "'" in sweep else "'"
        with self._errors():
            return [
                StoredRun(
                    run_id=run.info.run_id,
                    number=int(tags[fmt.CELL_TAG]) if fmt.CELL_TAG in tags else None,
                    parent_id=tags.get(fmt.PARENT_TAG),
                    host=tags.get("host", ""),
                    complete=tags.get(fmt.COMPLETE_TAG, ""),
                    upload=tags.get(fmt.UPLOAD_TAG, ""),
                )
                for run in self._search(f"tags.`{fmt.SWEEP_TAG}` = {quote}{sweep}{quote}")
                for tags in [run.data.tags]
            ]

    def set_parent(self, run_id: str, parent_id: str) -> None:
        """Make a cell's run the child of its sweep's run, which was opened later."""
        with self._errors():
            self._client.set_tag(run_id, fmt.PARENT_TAG, parent_id)

    def reopen(self, run_id: str) -> None:
        """Mark a run as running again, now in this process."""
        with self._errors():
            self._client.set_tag(run_id, fmt.PROCESS_TAG, RunProcess.this().text())
            self._client.update_run(run_id, status="RUNNING")

    def end_killed(self, run_id: str) -> None:
        """End a run whose process was killed."""
        with self._errors():
            self._client.set_terminated(run_id, "KILLED")

    def end_lost_runs(self) -> int:
        """See `Tracker`."""
        ended = 0
        with self._errors():
            ours = f"attributes.status = 'RUNNING' and tags.`{fmt.PROCESS_TAG}` LIKE '%'"
            for run in self._search(ours):
                process = RunProcess.of_text(run.data.tags.get(fmt.PROCESS_TAG, ""))
                if process is not None and process.is_gone():
                    note = fmt.lost_note(process.pid, process.host)
                    self._client.set_tag(run.info.run_id, fmt.NOTE_TAG, note)
                    self._client.set_terminated(run.info.run_id, "KILLED")
                    ended += 1
        return ended

    def cells(self) -> list[Run]:
        """The MLflow runs of all cells, oldest first.

        Raises:
            TrackingError: the store cannot be reached or has no experiment of that name.
        """
        with self._errors():
            if self._client.get_experiment_by_name(self.experiment) is None:
                names = sorted(found.name for found in self._client.search_experiments())
                raise TrackingError(
                    f"MLflow at {hide_argument(self.uri)} has no experiment "
                    f"{self.experiment!r}. Its experiments: {', '.join(names) or 'none'}"
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

    def _configure(self) -> None:
        """Import MLflow with our settings, unless the environment has others."""
        # MLflow reads these only from the environment, some on import and some on each call
        settings = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # 7 by default, which takes minutes
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(self.timeout_s)),
        }
        for key, value in settings.items():
            os.environ.setdefault(key, value)
        import mlflow  # noqa: F401 (now, with these settings)

        for noisy in ("mlflow", "alembic"):  # they log every table of a new store
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # It prints the traceback of each error, but we report errors ourselves
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

    @cached_property
    def _client(self) -> MlflowClient:
        self._configure()
        from mlflow import MlflowClient

        path = sqlite.path_of(self.uri)
        if path is None:
            return MlflowClient(tracking_uri=self.uri)
        return sqlite.open_store(path, lambda uri: MlflowClient(tracking_uri=uri))

    @cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            tags = fmt.experiment_tags(round(time.time() * 1e3))
            try:
                created: str = self._client.create_experiment(
                    self.experiment, self._location(), tags
                )
                return created
            except Exception:  # another process may have created it
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
        """The artifact location of a new experiment; None for the server's default."""
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
            tags={**standard, fmt.PROCESS_TAG: RunProcess.this().text(), **tags},
            run_name=name,
        )
        run_id: str = run.info.run_id
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for chunk in fmt.chunks(list(params.items()), fmt.PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in chunk])

    def _log_live(
        self, run_id: str, series: Mapping[str, Sequence[float]], started_at: float
    ) -> None:
        """Write time series, whose times are `series["time_s"]` in seconds after `started_at`."""
        from mlflow.entities import Metric

        points = [
            Metric(
                live_name(name), value, round((started_at + time_s) * 1e3), fmt.live_step(time_s)
            )
            for name, values in series.items()
            if name != "time_s"
            for time_s, value in zip(series["time_s"], values, strict=True)
            if fmt.is_number(value)
        ]
        for chunk in fmt.chunks(points, fmt.METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=chunk)

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float], at_s: float) -> None:
        """Write metrics at the time `at_s`; the same value at the same time is stored only once."""
        from mlflow.entities import Metric

        values = [Metric(key, value, round(at_s * 1e3), 0) for key, value in metrics.items()]
        for chunk in fmt.chunks(values, fmt.METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=chunk)

    def _log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(key, fmt.shorten(value, fmt.MAX_TAG)) for key, value in tags.items()]
        self._client.log_batch(run_id, tags=values)

    def _log_artifacts(self, run_id: str, folder: Path) -> None:
        for path in fmt.artifacts(folder):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            else:
                self._client.log_artifact(run_id, str(path))

    @contextlib.contextmanager
    def _complete(self, run_id: str, value: str) -> Iterator[None]:
        """Mark the run as complete after its end: a kill in between must not leave it running."""
        yield
        self._log_tags(run_id, {fmt.COMPLETE_TAG: value})

    @contextlib.contextmanager
    def _ending(self, run_id: str, status: str, end_s: float | None) -> Iterator[None]:
        """End the run with `status` even if a write fails, so that no run seems to run for ever."""
        try:
            yield
        finally:
            self._client.set_terminated(run_id, status, _milliseconds(end_s))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert every error of the store to TrackingError.

        Stores raise errors of MLflow, SQLAlchemy, HTTP clients, cloud libraries and the system.
        """
        try:
            yield
        except TrackingError:
            raise
        except Exception as error:
            uri = hide_argument(self.uri)
            message = hide(str(error), self.uri).strip() or type(error).__name__
            path = sqlite.path_of(self.uri)
            if path is not None and (remedy := sqlite.repair_message(path, message)):
                raise TrackingError(remedy) from error
            check = "the server is running" if path is None else f"{path} is readable and writable"
            raise TrackingError(
                f"MLflow at {uri} failed: {fmt.shorten(message, 1000)}. Check that {check} and "
                "that tracker.uri is correct, or measure without MLflow: tracker=none"
            ) from error


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e3)
