"""Refuse a cell that cannot work, before anything is started or loaded."""

from __future__ import annotations

from crossbench.backends.availability import find_unsupported, raise_unsupported
from crossbench.backends.base import Backend
from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.runner.compose import build_scheduler
from crossbench.runner.load import build_stop, build_traffic
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import CellPlan, make_plan
from crossbench.types import Task


def check_config(config: CellConfig) -> CellPlan:
    """Return the plan of a config after checking all values that need no files and no device.

    Raises:
        CrossbenchError: a value cannot be used; the message has the first such value and what to
            give.
    """
    plan = make_plan(config)
    build_traffic(plan)
    build_scheduler(plan.scheduler, "padded")
    for component in (plan.model, plan.dataset, plan.pool, plan.target, plan.quality):
        component.build()
    if plan.server is not None:
        plan.server.build()
    return plan


def longest_s(plan: CellPlan) -> float:
    """Return the seconds after which warm-up and measurement send no more requests."""
    settings = plan.settings
    warmup_s = settings.warmup_max_seconds if settings.warmup_requests else 0.0
    return warmup_s + build_stop(plan).longest_s


def check_support(plan: CellPlan) -> None:
    """Refuse a precision or a device that the backend does not support.

    Raises:
        UnsupportedQuant, UnsupportedDevice: the message lists what the backend supports.
    """
    backend: type[Backend] = plan.backend.type
    quant = plan.settings.quant
    raise_unsupported(
        str(plan.backend.name),
        find_unsupported(backend.supported, quant, plan.settings.device),
        quant,
    )


def check_task(plan: CellPlan, model: ModelFolder) -> None:
    """Refuse a load that the model cannot serve.

    Raises:
        ConfigError: the load asks a cross-encoder for embeddings.
    """
    if plan.task is Task.EMBED and model.embedding is None:
        raise ConfigError(
            f"load.task=embed: {model.name} is a cross-encoder, which scores pairs and has no "
            "embeddings. Give load.task=score, or a sentence-transformer such as "
            "model=all-minilm-l6"
        )
