"""Get the folders of the models that a server will serve."""

from __future__ import annotations

import dataclasses

from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.settings.plan import CellPlan


def fetch_model(plan: CellPlan) -> ModelFolder:
    """Return the folder of the model; generate or download it first if it is missing.

    Raises:
        ModelError: the model is not available, or its folder is broken.
    """
    folder: ModelFolder = plan.model.build().fetch(plan.settings.cache_dir)
    return folder


def fetch_more_models(plan: CellPlan, first: str) -> list[ModelFolder]:
    """Return the folders of the models in `pool.models`, which are served in addition to `first`.

    Raises:
        ConfigError: a model has the same name as `first`.
        ModelError: a model is not available, or its folder is broken.
    """
    if first in plan.more_models:
        raise ConfigError(
            f"pool.models has {first}, but the server already has model={first}: give it another "
            f"name, for example pool.models={{second: {first}}}"
        )
    return [
        dataclasses.replace(model.build().fetch(plan.settings.cache_dir), name=name)
        for name, model in plan.more_models.items()
    ]
