"""The folders of the models that a server is to serve."""

from __future__ import annotations

import dataclasses

from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.settings.plan import CellPlan


def fetch_model(plan: CellPlan) -> ModelFolder:
    """The model's folder, made or downloaded where it is not there yet.

    Raises:
        ModelError: the model cannot be had or its folder is broken.
    """
    folder: ModelFolder = plan.model.build().fetch(plan.settings.cache_dir)
    return folder


def fetch_more_models(plan: CellPlan, first: str) -> list[ModelFolder]:
    """The folders of what `pool.models` names, to be served beside the model `first`.

    Raises:
        ConfigError: one has the name of the first.
        ModelError: a model cannot be had.
    """
    if first in plan.more_models:
        raise ConfigError(
            f"pool.models has {first}, which this server has already as model={first}: give it a "
            f"name of your own, pool.models={{second: {first}}}"
        )
    return [
        dataclasses.replace(model.build().fetch(plan.settings.cache_dir), name=name)
        for name, model in plan.more_models.items()
    ]
