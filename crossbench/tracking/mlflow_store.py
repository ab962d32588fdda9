"""The MLflow tracker: creates, writes, ends and finds runs in an MLflow store."""

from __future__ import annotations

import contextlib
import getpass
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crossbench.errors import ConfigError
from crossbench.measure.probes import environment
from crossbench.results import RunResult, Status
from crossbench.tracking import mlflow_format as fmt
from crossbench.tracking.mlflow_config import cell_params, config_tags, sweep_params
from crossbench.tracking.mlflow_connection import MlflowConnection
from crossbench.tracking.mlflow_registry import link_version
from crossbench.tracking.mlflow_run import MlflowRun, milliseconds
from crossbench.tracking.mlflow_view import view_path
from crossbench.tracking.protocol import CellRef
from crossbench.tracking.run_process import RunProcess

if TYPE_CHECKING:
    from mlflow.entities import Run


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
        with self._connection.errors():
            self._connection.prepare()

    def start_sweep(self, folder: str, title: str, overrides: Sequence[str]) -> str | None:
        run_id = self.open_sweep(folder, title, environment(), None)
        self.log_overrides(run_id, overrides)
        return run_id

    def open_sweep(
        self,
        folder: str,
        title: str,
        found: Mapping[str, object],
        start_s: float | None,
        upload: str = "",
    ) -> str:
        """Open a sweep's run that started at `start_s` (Unix seconds, None: now).

        `found` is the result of `environment()` on the machine that ran the sweep, and `upload` a
        name by which a later upload finds the run.
        """
        tags = {fmt.SWEEP_TAG: folder, **fmt.environment_tags(found)}
        with self._connection.errors():
            return self._create_run(
                title, tags | ({fmt.UPLOAD_TAG: upload} if upload else {}), start_s
            )

    def log_overrides(self, run_id: str, overrides: Sequence[str]) -> None:
        """Write the command line of a sweep as the params of its run."""
        with self._connection.errors():
            self._run(run_id).log_params(sweep_params(overrides))

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
        with self._connection.errors():
            return self._create_run(name, tags, start_s)

    def finish_cell(
        self,
        run_id: str,
        result: RunResult,
        folder: Path,
        interrupted: bool = False,
        end_s: float | None = None,
        *,
        axes: Sequence[str] = (),
        whole: bool = True,
    ) -> None:
        """See `Tracker`. `end_s` is when the cell ended (Unix seconds, None: now).

        Writing the same result again changes nothing.
        """
        # An unsupported cell has no metrics either; the tag `status` tells it from a failure
        ended = "FINISHED" if result.status is Status.FINISHED else "FAILED"
        run = self._run(run_id)
        with (
            self._connection.errors(),
            run.complete(result.started_at) if whole else contextlib.nullcontext(),
            run.ending("KILLED" if interrupted else ended, end_s),
        ):
            run.log_tags(config_tags(result.config) | fmt.cell_tags(result))
            run.log_params(cell_params(result.config, axes))
            started_at = fmt.unix(result.started_at) or time.time()
            run.log_metrics(fmt.cell_metrics(result.metrics), started_at)
            if result.series:
                run.log_live(result.series, started_at)
            if result.dataset:
                self._connection.client.log_inputs(run_id, [fmt.dataset_input(result.dataset)])
            run.log_artifacts(folder)
            if self.registered_model and result.status is Status.FINISHED:
                client = self._connection.client
                version = link_version(client, self.registered_model, run_id, result)
                run.log_tags({"crossbench.model_version": version})

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
        run = self._run(run_id)
        with (
            self._connection.errors(),
            run.complete(str(len(results))),
            run.ending(ended, end_s),
        ):
            started_at = max((fmt.unix(result.started_at) for result in results), default=0.0)
            run.log_metrics(fmt.sweep_metrics(results), started_at)
            pages = {
                cell.number: f"#/experiments/{self._connection.experiment_id}/runs/{cell.run_id}"
                for cell in self.find(folder.resolve().name)
                if cell.number is not None and cell.parent_id == run_id
            }
            note = fmt.sweep_note(folder / "report.md", run_id, pages)
            run.log_tags({fmt.NOTE_TAG: note} if note else {})
            run.log_artifacts(folder)

    def find(self, sweep: str) -> list[StoredRun]:
        """The parent run and the cells' runs of the sweep with this name, oldest first."""
        quote = '"' if "'" in sweep else "'"
        of_sweep = f"tags.`{fmt.SWEEP_TAG}` = {quote}{sweep}{quote}"
        with self._connection.errors():
            return [
                StoredRun(
                    run_id=run.info.run_id,
                    number=int(tags[fmt.CELL_TAG]) if fmt.CELL_TAG in tags else None,
                    parent_id=tags.get(fmt.PARENT_TAG),
                    host=tags.get("host", ""),
                    complete=tags.get(fmt.COMPLETE_TAG, ""),
                    upload=tags.get(fmt.UPLOAD_TAG, ""),
                )
                for run in self._connection.search(of_sweep)
                for tags in [run.data.tags]
            ]

    def set_parent(self, run_id: str, parent_id: str) -> None:
        """Make a cell's run the child of its sweep's run, which was opened later."""
        with self._connection.errors():
            self._connection.client.set_tag(run_id, fmt.PARENT_TAG, parent_id)

    def reopen(self, run_id: str) -> None:
        """Mark a run as running again, now in this process."""
        with self._connection.errors():
            self._connection.client.set_tag(run_id, fmt.PROCESS_TAG, RunProcess.this().text())
            self._connection.client.update_run(run_id, status="RUNNING")

    def end_killed(self, run_id: str) -> None:
        """End a run whose process was killed."""
        with self._connection.errors():
            self._connection.client.set_terminated(run_id, "KILLED")

    def end_lost_runs(self) -> int:
        """See `Tracker`."""
        ended = 0
        with self._connection.errors():
            ours = f"attributes.status = 'RUNNING' and tags.`{fmt.PROCESS_TAG}` LIKE '%'"
            for run in self._connection.search(ours):
                process = RunProcess.of_text(run.data.tags.get(fmt.PROCESS_TAG, ""))
                if process is not None and process.is_gone():
                    note = fmt.lost_note(process.pid, process.host)
                    self._connection.client.set_tag(run.info.run_id, fmt.NOTE_TAG, note)
                    self._connection.client.set_terminated(run.info.run_id, "KILLED")
                    ended += 1
        return ended

    def cells(self) -> list[Run]:
        """The MLflow runs of all cells, oldest first.

        Raises:
            TrackingError: the store cannot be reached or has no experiment of that name.
        """
        with self._connection.errors():
            self._connection.check_experiment()
            return [run for run in self._connection.search("") if "cell_id" in run.data.tags]

    def sweeps_named(self, name: str) -> set[str]:
        """The ids of the parent runs with this name in MLflow.

        Raises:
            TrackingError: the store cannot be reached.
        """
        quote = '"' if "'" in name else "'"
        with self._connection.errors():
            found = self._connection.search(f"attributes.run_name = {quote}{name}{quote}")
            return {run.info.run_id for run in found if fmt.CELL_TAG not in run.data.tags}

    def view_path(self) -> str:
        """The path of the view of all cells on MLflow's page, see `mlflow_view.view_path`.

        Raises:
            TrackingError: the store cannot be reached or refused a write.
        """
        with self._connection.errors():
            return view_path(self._connection.described_experiment_id)

    @cached_property
    def _connection(self) -> MlflowConnection:
        return MlflowConnection(self.uri, self.experiment, self.artifact_location, self.timeout_s)

    def _run(self, run_id: str) -> MlflowRun:
        return MlflowRun(self._connection, run_id)

    def _create_run(self, name: str, tags: Mapping[str, str], start_s: float | None) -> str:
        standard = {"mlflow.source.name": "crossbench", "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
            standard["mlflow.user"] = getpass.getuser()
        run = self._connection.client.create_run(
            self._connection.described_experiment_id,
            start_time=milliseconds(start_s),
            tags={**standard, fmt.PROCESS_TAG: RunProcess.this().text(), **tags},
            run_name=name,
        )
        run_id: str = run.info.run_id
        return run_id
