"""What of a cell can be refused before anything is started or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class

from crossbench.backends.availability import refuse, support
from crossbench.backends.base import Backend
from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.runner.build import build
from crossbench.runner.compose import build_scheduler, replica_devices
from crossbench.runner.load import build_load
from crossbench.settings.schema import CellSettings, check_groups, check_settings
from crossbench.types import Task


def check_values(config: Mapping[str, Any]) -> CellSettings:
    """Refuse values that can be used on no machine, before anything is started or loaded.

    What needs a model, a data set's files or a device is not asked.

    Raises:
        CrossbenchError: the first value that cannot be used, what was given and what to give.
    """
    settings = check_settings(config)
    check_groups(config)
    replica_devices(config["backend"].get("devices"), settings.device)
    build_load(config, settings)
    build_scheduler(config, "padded")
    for group in ("model", "dataset", "pool", "server", "target", "quality"):
        if "_target_" in config[group]:  # a server that runs already is an address alone
            build(config[group])
    return settings


def check_support(config: Mapping[str, Any], settings: CellSettings) -> None:
    """Refuse a precision or device that the backend does not have, before anything is loaded.

    Raises:
        UnsupportedQuant, UnsupportedDevice: with the list of what the backend has.
    """
    backend: type[Backend] = get_class(config["backend"]["_target_"])
    quant = settings.quant
    refuse(config["backend"]["name"], support(backend.supported, quant, settings.device), quant)


def check_task(task: Task, model: ModelFolder) -> None:
    """Refuse what the load asks of the server where the model does not do it.

    Raises:
        ConfigError: a cross-encoder is to embed.
    """
    if task is Task.EMBED and model.embedding is None:
        raise ConfigError(
            f"load.task=embed: {model.name} is a cross-encoder, which scores pairs and does not "
            "embed. Give load.task=score, or a sentence-transformer such as model=all-minilm-l6"
        )
