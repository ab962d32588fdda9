"""The folders of the models that a server is to serve."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from crossbench.errors import ConfigError
from crossbench.models.folder import ModelFolder
from crossbench.runner.build import build
from crossbench.settings.places import conf_dir
from crossbench.settings.schema import CellSettings


def fetch_model(config: Mapping[str, Any], settings: CellSettings) -> ModelFolder:
    """The model's folder, made or downloaded where it is not there yet.

    Raises:
        ModelError: the model cannot be had or its folder is broken.
    """
    folder: ModelFolder = build(config["model"]).fetch(settings.cache_dir)
    return folder


def further_models(chosen: Any, cache_dir: Path, first: str) -> list[ModelFolder]:
    """The folders of what `pool.models` names, to be served beside the model `first`.

    Raises:
        ConfigError: it is neither a list nor a mapping of models, or two have the same name.
        ModelError: a model cannot be had.
    """
    if isinstance(chosen, Mapping):
        named = {str(name): _model_node(model) for name, model in chosen.items()}
    elif chosen is None or (isinstance(chosen, Sequence) and not isinstance(chosen, str)):
        nodes = [_model_node(model) for model in chosen or ()]
        named = {}
        for node in nodes:
            name = str(node.get("name"))
            if name in named:
                raise ConfigError(
                    f"pool.models has {name} twice: give names of your own, for example "
                    f"pool.models={{first: {name}, second: {{base: {name}, max_length: 128}}}}"
                )
            named[name] = node
    else:
        raise ConfigError(
            f"pool.models must be a list of choices of conf/model or a mapping, got {chosen!r}: "
            "give for example pool.models=[minilm-l6]"
        )
    if first in named:
        raise ConfigError(
            f"pool.models has {first}, which this server has already as model={first}: give it a "
            f"name of your own, pool.models={{second: {first}}}"
        )
    return [
        dataclasses.replace(build(node).fetch(cache_dir), name=name) for name, node in named.items()
    ]


def _model_node(model: Any) -> dict[str, Any]:
    """A whole model node from a choice's name, `{base: choice, key: value}`, or a whole node."""
    if isinstance(model, Mapping) and "_target_" in model:
        return dict(model)
    changes = dict(model) if isinstance(model, Mapping) else {"base": model}
    choice = changes.pop("base", None)
    file = conf_dir() / "model" / f"{choice}.yaml"
    if not isinstance(choice, str) or not file.is_file():
        choices = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise ConfigError(
            f"pool.models: {model!r} is not a choice of conf/model: give one of {choices}, or "
            "{base: one of them, key: value}"
        )
    node = choice_values("model", choice)
    if unknown := changes.keys() - node.keys():
        raise ConfigError(
            f"pool.models: model {choice} has no {', '.join(sorted(unknown))}: what it has is "
            f"{', '.join(str(key) for key in node if key != '_target_')}"
        )
    return {**node, **changes}


def choice_values(group: str, name: str) -> dict[str, Any]:
    """A choice's values over those of the group's choices that its defaults list names."""
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=True)
    assert isinstance(node, dict)
    values: dict[str, Any] = {}
    for base in node.pop("defaults", ()):
        if isinstance(base, str):  # the others override other groups
            values |= choice_values(group, base)
    return values | {str(key): value for key, value in node.items()}
