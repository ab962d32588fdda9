"""How an MLflow store is reached: its client, its experiment, and the errors that it raises."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from crossbench.errors import TrackingError
from crossbench.system.credentials import hide, hide_argument
from crossbench.tracking import mlflow_format as fmt
from crossbench.tracking import mlflow_sqlite as sqlite
from crossbench.tracking.mlflow_view import experiment_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_RUNS_PER_PAGE = 1000
# MLflow sends them to a server; user and password come before the token
_CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class MlflowConnection:
    """A store and one of its experiments; the arguments are those of `MlflowTracker`.

    Everything is done when it is first needed. What fails raises errors of MLflow and of others,
    which `errors` converts.
    """

    uri: str
    experiment: str
    artifact_location: str | None
    timeout_s: float

    def prepare(self) -> None:
        """Import MLflow and create an embedded store; ask no server."""
        self._configure()
        if sqlite.path_of(self.uri) is not None:
            _ = self.client

    @cached_property
    def client(self) -> MlflowClient:
        self._configure()
        from mlflow import MlflowClient

        path = sqlite.path_of(self.uri)
        if path is None:
            return MlflowClient(tracking_uri=self.uri)
        return sqlite.open_store(path, lambda uri: MlflowClient(tracking_uri=uri))

    @cached_property
    def experiment_id(self) -> str:
        """The id of the experiment, which is created if the store has none of that name."""
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                created: str = self.client.create_experiment(self.experiment, self._location())
                return created
            except Exception:  # another process may have created it
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"the MLflow experiment {self.experiment!r} was deleted: restore it, or choose "
                "another name with tracker.experiment=NAME"
            )
        experiment_id: str = found.experiment_id
        return experiment_id

    @cached_property
    def described_experiment_id(self) -> str:
        """The id of the experiment, which gets the view and the description that it lacks."""
        experiment = self.client.get_experiment(self.experiment_id)
        tags = experiment_tags(self.experiment_id, experiment.tags, round(time.time() * 1e3))
        for key, value in tags.items():
            self.client.set_experiment_tag(self.experiment_id, key, value)
        return self.experiment_id

    def check_experiment(self) -> None:
        """Check that the store has the experiment, without creating it.

        Raises:
            TrackingError: it has none of that name.
        """
        if self.client.get_experiment_by_name(self.experiment) is None:
            names = sorted(found.name for found in self.client.search_experiments())
            raise TrackingError(
                f"MLflow at {hide_argument(self.uri)} has no experiment "
                f"{self.experiment!r}. Its experiments: {', '.join(names) or 'none'}"
            )

    def search(self, condition: str) -> list[Run]:
        """Return the runs of the experiment that meet MLflow's `condition`, oldest first."""
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                condition,
                max_results=_RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
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
            raise TrackingError(
                f"MLflow at {uri} failed: {fmt.shorten(message, 1000)}. "
                f"{_refused(error) or self._check()}, or measure without MLflow: tracker=none"
            ) from error

    def _check(self) -> str:
        """What to check after an error that has no better advice."""
        path = sqlite.path_of(self.uri)
        check = "the server is running" if path is None else f"{path} is readable and writable"
        return f"Check that {check} and that tracker.uri is correct"

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

    def _location(self) -> str | None:
        """The artifact location of a new experiment; None for the server's default."""
        if self.artifact_location is None or "://" in self.artifact_location:
            return self.artifact_location
        embedded = self.uri.startswith(("sqlite:", "file:")) or "://" not in self.uri
        return str(Path(self.artifact_location).expanduser().resolve()) if embedded else None


def _refused(error: Exception) -> str:
    """What to do if the server refused the user, empty if the error is another one."""
    # Only MLflow's errors have a status
    status = error.get_http_status_code() if hasattr(error, "get_http_status_code") else 0
    if status == HTTPStatus.FORBIDDEN:
        return "This user may not do that: ask for permission to edit the experiment"
    if status != HTTPStatus.UNAUTHORIZED:
        return ""
    used = [name for name in _CREDENTIALS if os.environ.get(name)]
    if used:
        return f"The server refused {' and '.join(used)} of the environment: correct them"
    user, password, token = _CREDENTIALS
    return f"The server asks who you are: set {user} and {password}, or {token}"
