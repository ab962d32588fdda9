"""Parse `pool.models`: the models to serve in addition to the cell's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.errors import ConfigError
from crossbench.settings.component import Component, choice_values
from crossbench.settings.places import conf_dir


def named_models(chosen: Any) -> dict[str, Component]:
    """Return the models of `pool.models` by the name that requests use.

    `chosen` is a list or a mapping of names. Its items are choices of conf/model, `{base: choice,
    key: value}`, or complete model configs.

    Raises:
        ConfigError: `chosen` is neither, two models have the same name, or a choice does not exist.
    """
    if isinstance(chosen, Mapping):
        nodes = {str(name): _model_node(model) for name, model in chosen.items()}
    elif chosen is None or (isinstance(chosen, Sequence) and not isinstance(chosen, str)):
        nodes = {}
        for node in map(_model_node, chosen or ()):
            name = str(node.get("name"))
            if name in nodes:
                raise ConfigError(
                    f"pool.models has {name} twice: give each a name of its own, for example "
                    f"pool.models={{first: {name}, second: {{base: {name}, max_length: 128}}}}"
                )
            nodes[name] = node
    else:
        raise ConfigError(
            f"pool.models must be a list of choices of conf/model or a mapping, got {chosen!r}: "
            "give for example pool.models=[minilm-l6]"
        )
    return {name: Component.of(f"pool.models.{name}", node) for name, node in nodes.items()}


def _model_node(model: Any) -> dict[str, Any]:
    """Return the complete config of one item of `pool.models`."""
    if isinstance(model, Mapping) and "_target_" in model:
        return dict(model)
    changes = dict(model) if isinstance(model, Mapping) else {"base": model}
    choice = changes.pop("base", None)
    file = conf_dir() / "model" / f"{choice}.yaml"
    if not isinstance(choice, str) or not file.is_file():
        choices = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise ConfigError(
            f"pool.models: {model!r} is not a choice of conf/model: give one of {choices}, or "
            "{base: CHOICE, key: value}"
        )
    node = choice_values("model", choice)
    if unknown := changes.keys() - node.keys():
        raise ConfigError(
            f"pool.models: model {choice} has no key {', '.join(sorted(unknown))}. Available keys: "
            f"{', '.join(str(key) for key in node if key != '_target_')}"
        )
    return {**node, **changes}
