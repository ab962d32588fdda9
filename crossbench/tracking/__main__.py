"""`python -m crossbench.tracking PORT`: MLflow's page for the runs in outputs/, until Ctrl-C.

It prints the address that shows the cells with their numbers: at others, MLflow shows no runs at
first. With MLFLOW_TRACKING_URI=http://HOST:PORT, the page is that server's, and none is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from crossbench.errors import ConfigError
from crossbench.settings.run import default_tracker
from crossbench.system.command import only_argument, run_command
from crossbench.system.credentials import hide_argument
from crossbench.tracking.mlflow_store import MlflowTracker

_USAGE = "usage: python -m crossbench.tracking 5000"
_SERVER_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def main(arguments: Sequence[str]) -> None:
    """Print the address of the cells, and become the server of the page.

    Raises:
        ConfigError: PORT is not the number of a port.
        TrackingError: the store cannot be reached.
    """
    port = only_argument(arguments, __doc__, _USAGE)
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ConfigError(f"PORT must be a number from 1 to 65535, got {port!r}\n{_USAGE}")
    tracker: MlflowTracker = default_tracker().build()
    is_server = tracker.uri.startswith(("http:", "https:"))
    root = hide_argument(tracker.uri).rstrip("/") if is_server else f"http://127.0.0.1:{port}"
    print(f"The cells with their numbers: {root}/{tracker.view_path()}", flush=True)
    if is_server:
        return
    command = [
        *(sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", "127.0.0.1"),
        *("--port", port, "--backend-store-uri", tracker.uri),
    ]
    os.execvpe(sys.executable, command, {**os.environ, **_SERVER_SETTINGS})


if __name__ == "__main__":
    run_command(main)
