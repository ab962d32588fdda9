"""Read the results of a sweep back from MLflow: what its runs store of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossbench.errors import TrackingError
from crossbench.measure import catalogue
from crossbench.results import RunResult, Status
from crossbench.settings.cell_config import CellConfig
from crossbench.tracking import mlflow_format as fmt
from crossbench.tracking.mlflow_config import parsed, stored_config
from crossbench.tracking.mlflow_store import MlflowTracker

if TYPE_CHECKING:
    from mlflow.entities import Run

_VERSION = "version."


def stored_results(tracker: MlflowTracker, sweep: str) -> list[RunResult]:
    """Return the results of a sweep, or of one cell, oldest first.

    `sweep` is as for `cells_of`, or the id of a cell's run.

    Raises:
        TrackingError: the store cannot be reached, it has no such sweep, or the name is that of
            several sweeps.
    """
    runs = tracker.cells()
    found = [run for run in runs if run.info.run_id == sweep] or cells_of(tracker, sweep, runs)
    parents = {_tag(run, fmt.PARENT_TAG) for run in found}
    if len(parents) > 1:
        raise TrackingError(
            f"the store has {len(parents)} sweeps named {sweep!r}: give the id of one parent "
            f"run: {', '.join(sorted(filter(None, parents)))}"
        )
    return [_result(run) for run in found]


def cells_of(tracker: MlflowTracker, sweep: str, runs: Sequence[Run]) -> list[Run]:
    """Return those of the cells' `runs` that belong to a sweep.

    `sweep` is the name of the sweep's folder, or the id or the name of its MLflow run. Several
    sweeps may have that name.

    Raises:
        TrackingError: the store has no such sweep.
    """
    found = [run for run in runs if sweep in (_tag(run, fmt.SWEEP_TAG), _tag(run, fmt.PARENT_TAG))]
    if not found:
        parents = tracker.sweeps_named(sweep)
        found = [run for run in runs if _tag(run, fmt.PARENT_TAG) in parents]
    if not found:
        names = dict.fromkeys(filter(None, (_tag(run, fmt.SWEEP_TAG) for run in runs)))
        raise TrackingError(
            f"the store has no sweep and no run {sweep!r}. Its newest sweeps: "
            f"{', '.join(list(names)[-5:]) or 'none'}. Upload a sweep with python -m "
            "crossbench.sync"
        )
    return found


def _tag(run: Run, name: str) -> str:
    return str(run.data.tags.get(name, ""))


def _result(run: Run) -> RunResult:
    tags = run.data.tags
    config = CellConfig(stored_config(tags, run.data.params))
    known = tags.get("status") in set(Status)
    return RunResult(
        Status(tags["status"]) if known else Status.FAILED,
        config,
        config.cell_id,
        error=tags.get("error") or (None if known else "MLflow has no complete result of it"),
        metrics={k: v for k, v in run.data.metrics.items() if not catalogue.is_live(k)},
        environment=_environment(tags),
        model={"digest": tags.get(fmt.DIGEST_TAG), "name": tags.get("model")},
        dataset=_dataset(run),
        quality={
            "verdict": tags["quality"],
            "reason": tags.get("quality.reason", ""),
        }
        if "quality" in tags
        else {},
        flags=dict.fromkeys(filter(None, tags.get(fmt.FLAGS_TAG, "").split(",")), ""),
        started_at=tags.get(fmt.COMPLETE_TAG, ""),
    )


def _environment(tags: Mapping[str, str]) -> dict[str, Any]:
    """The reverse of `mlflow_format.environment_tags`."""
    found: dict[str, Any] = {
        key: tags[key] for key in ("host", "os", "python", "cpu", "git_commit") if key in tags
    }
    found |= {key: parsed(tags[key]) for key in ("cores_usable", "memory_total_mb") if key in tags}
    if "git_dirty" in tags:
        found["git_dirty"] = tags["git_dirty"] == "True"
    return {
        **found,
        "gpus": tags["gpus"].split(", ") if tags.get("gpus") else [],
        "versions": {
            key.removeprefix(_VERSION): text
            for key, text in tags.items()
            if key.startswith(_VERSION)
        },
    }


def _dataset(run: Run) -> dict[str, Any]:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {"name": inputs[0].dataset.name, "digest": inputs[0].dataset.digest} if inputs else {}
