"""Links runs to a model version in MLflow's registry and keeps its best figures in tags.

With `tracker.registered_model=NAME`, a version of NAME stands for one served model, identified by
the digest of its files in the tag `crossbench.model_digest`. An existing version with that tag is
used; otherwise a version is created whose source is the first run that measured the model. The
model's files are not copied into the registry, as they are large and the digest identifies them.
The version's tags contain the best throughput of all runs and the id of that run. Each run has the
tag `crossbench.model_version`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossbench.errors import TrackingError
from crossbench.load.labels import load_description
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.results import Flag, RunResult
from crossbench.tracking.mlflow_format import DIGEST_TAG, is_number
from crossbench.types import Pipeline

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

RATE_TAG, P95_TAG, RUN_TAG, CELL_TAG = (
    f"crossbench.best_{name}" for name in (PAIRS_PER_S.key, P95_LATENCY.key, "run_id", "cell")
)


def link_version(client: MlflowClient, name: str, run_id: str, result: RunResult) -> str:
    """Update the tags of the model's version and return the version as `models:/NAME/N`.

    Raises:
        TrackingError: the result has no model digest.
    """
    digest = str(result.model.get("digest") or "")
    if not digest:
        raise TrackingError(
            "the result has no model digest, so it cannot be linked to a registered version"
        )
    version = _version(client, name, digest) or _create(client, name, run_id, digest, result)
    number = str(version.version)
    rate, p95 = (result.metrics.get(metric.name) for metric in (PAIRS_PER_S, P95_LATENCY))
    best_so_far = float(version.tags.get(RATE_TAG, "-inf"))
    comparable = _measures_model(result) and Flag.OVER_SATURATED not in result.flags
    if comparable and is_number(rate) and float(rate or 0) > best_so_far:
        model = result.model
        tags = {
            RATE_TAG: f"{rate:.6g}",
            **({P95_TAG: f"{p95:.6g}"} if is_number(p95) else {}),
            RUN_TAG: run_id,
            CELL_TAG: " ".join(
                (
                    # Of a server of other people only the target is known
                    str(model.get("backend") or result.config.value("target")),
                    *filter(None, [model.get("quant")]),
                    load_description(result.config),
                )
            ),
        }
        for key, value in tags.items():
            client.set_model_version_tag(name, number, key, value)
    return f"models:/{name}/{number}"


def _measures_model(result: RunResult) -> bool:
    """Whether the whole pipeline ran with a model, not only the harness or one stage."""
    return result.computes_scores and result.config.value("pipeline") == Pipeline.FULL


def _version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The newest version with this digest."""
    found = client.search_model_versions(_name_filter(name), max_results=1000)
    fitting = [item for item in found if item.tags.get(DIGEST_TAG) == digest]
    return max(fitting, key=lambda item: int(item.version), default=None)


def _create(
    client: MlflowClient, name: str, run_id: str, digest: str, result: RunResult
) -> ModelVersion:
    if not client.search_registered_models(_name_filter(name)):
        client.create_registered_model(name, description="Models that crossbench has measured")
    return client.create_model_version(
        name,
        source=client.get_run(run_id).info.artifact_uri,
        run_id=run_id,
        tags={DIGEST_TAG: digest, "model": str(result.model.get("name", ""))},
        description="Measured by crossbench. Its files are not stored here, only their digest.",
    )


def _name_filter(name: str) -> str:
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"
