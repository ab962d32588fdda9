"""What is written into one run of an MLflow store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossbench.measure.catalogue import live_name
from crossbench.tracking import mlflow_format as fmt
from crossbench.tracking.mlflow_connection import MlflowConnection


@dataclass(frozen=True, slots=True)
class MlflowRun:
    """A run in a store; each call writes as many batches as MLflow's limits need."""

    connection: MlflowConnection
    run_id: str

    def log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for chunk in fmt.chunks(list(params.items()), fmt.PARAMS_PER_CALL):
            self._log_batch(params=[Param(key, value) for key, value in chunk])

    def log_live(self, series: Mapping[str, Sequence[float]], started_at: float) -> None:
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
            self._log_batch(metrics=chunk)

    def log_metrics(self, metrics: Mapping[str, float], at_s: float) -> None:
        """Write metrics at the time `at_s`; the same value at the same time is stored only once."""
        from mlflow.entities import Metric

        values = [Metric(key, value, round(at_s * 1e3), 0) for key, value in metrics.items()]
        for chunk in fmt.chunks(values, fmt.METRICS_PER_CALL):
            self._log_batch(metrics=chunk)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        values = [RunTag(key, fmt.shorten(value, fmt.MAX_TAG)) for key, value in tags.items()]
        self._log_batch(tags=values)

    def log_artifacts(self, folder: Path) -> None:
        for path in fmt.artifacts(folder):
            if path.is_dir():
                self.connection.client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self.connection.client.log_artifact(self.run_id, str(path))

    @contextlib.contextmanager
    def complete(self, value: str) -> Iterator[None]:
        """Mark the run as complete after its end: a kill in between must not leave it running."""
        yield
        self.log_tags({fmt.COMPLETE_TAG: value})

    @contextlib.contextmanager
    def ending(self, status: str, end_s: float | None) -> Iterator[None]:
        """End the run with `status` even if a write fails, so that no run seems to run for ever."""
        try:
            yield
        finally:
            self.connection.client.set_terminated(self.run_id, status, milliseconds(end_s))

    def _log_batch(self, **values: object) -> None:
        self.connection.client.log_batch(self.run_id, **values)


def milliseconds(seconds: float | None) -> int | None:
    """Return a time in Unix seconds as MLflow's integer milliseconds; None stays None."""
    return None if seconds is None else round(seconds * 1e3)
