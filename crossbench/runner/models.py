"""Get the folders of the models that a server will serve."""

from __future__ import annotations

import dataclasses
import socket

from crossbench.errors import ConfigError, ModelError
from crossbench.models.folder import ModelFolder
from crossbench.settings.plan import CellPlan


def fetch_model(plan: CellPlan) -> ModelFolder:
    """Return the folder of the model; generate or download it first if it is missing.

    Raises:
        ModelError: the model is not available, or its folder is broken.
    """
    folder: ModelFolder = plan.model.build().fetch(plan.settings.cache_dir)
    return folder


def on_this_machine(plan: CellPlan, model: ModelFolder) -> ModelFolder:
    """Return `model` if its folder is here; on another machine of a cluster it may not be.

    Raises:
        ModelError: it is not here, and cannot be generated or downloaded.
    """
    if model.path.exists():
        return model
    found = fetch_model(plan)
    if found.digest != model.digest:
        raise ModelError(
            f"{found.path} on {socket.gethostname()} is another model than {model.path} on the "
            f"machine that started this ({found.digest}, not {model.digest}): copy that folder"
        )
    return found


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
