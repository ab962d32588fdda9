"""What of a cell can be refused before anything is started or loaded."""

from __future__ import annotations

from crossbench.backends.availability import find_unsupported, raise_unsupported
from crossbench.backends.base import Backend
from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.runner.compose import build_scheduler
from crossbench.runner.load import build_traffic
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import CellPlan, make_plan
from crossbench.types import Task


def check_config(config: CellConfig) -> CellPlan:
    """The plan of a config whose values can be used on some machine.

    What needs a model, a data set's files or a device is not asked.

    Raises:
        CrossbenchError: the first value that cannot be used, what was given and what to give.
    """
    plan = make_plan(config)
    build_traffic(plan)
    build_scheduler(plan.scheduler, "padded")
    for component in (plan.model, plan.dataset, plan.pool, plan.target, plan.quality):
        component.build()
    if plan.server is not None:
        plan.server.build()
    return plan


def check_support(plan: CellPlan) -> None:
    """Refuse a precision or device that the backend does not have, before anything is loaded.

    Raises:
        UnsupportedQuant, UnsupportedDevice: with the list of what the backend has.
    """
    backend: type[Backend] = plan.backend.type
    quant = plan.settings.quant
    raise_unsupported(
        str(plan.backend.name),
        find_unsupported(backend.supported, quant, plan.settings.device),
        quant,
    )


def check_task(plan: CellPlan, model: ModelFolder) -> None:
    """Refuse a load that asks for what the model does not do.

    Raises:
        ConfigError: a cross-encoder is to embed.
    """
    if plan.task is Task.EMBED and model.embedding is None:
        raise ConfigError(
            f"load.task=embed: {model.name} is a cross-encoder, which scores pairs and does not "
            "embed. Give load.task=score, or a sentence-transformer such as model=all-minilm-l6"
        )
