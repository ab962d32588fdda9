"""Sweeps on disk that were never logged, and an MLflow store for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from crossbench.results import RunResult, save_result
from crossbench.tracking.mlflow_store import MlflowTracker


def embedded_tracker(outputs: Path) -> MlflowTracker:
    """Return the tracker of a SQLite store in `outputs`."""
    return MlflowTracker(
        name="mlflow",
        uri=f"sqlite:///{outputs}/mlflow.db",
        experiment="crossbench",
        artifact_location=str(outputs / "mlartifacts"),
        registered_model=None,
        timeout_s=30,
    )


def save_sweep(
    folder: Path, results: Sequence[RunResult], cells: int, params: str, task: str
) -> None:
    """Write a sweep of so many cells, of which the first ones have `results`.

    `params` and `task` are what Hydra saves of its command line.
    """
    for number, result in enumerate(results):
        (folder / str(number)).mkdir(parents=True)
        save_result(result, folder / str(number))
    state = {"name": folder.name, "cells": cells, "parent_run_id": None, "pid": 1}
    (folder / "sweep.json").write_text(json.dumps(state), "utf-8")
    (folder / "multirun.yaml").write_text(
        f"hydra:\n  sweeper: {{params: {params}}}\n  overrides: {{task: {task}}}\n"
    )
