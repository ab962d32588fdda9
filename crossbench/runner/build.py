"""From a config group's `_target_` and its values to the object that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_class

from crossbench.errors import ConfigError


def build(node: Mapping[str, Any], **extra: Any) -> Any:
    """Construct a group's `_target_` from its values, nested targets first, and `extra`.

    Not Hydra's `instantiate`, which would turn the dataclasses in `extra` into configs.

    Raises:
        CrossbenchError: what the class itself refused.
        ConfigError: the class does not take these values.
    """
    values = {
        key: build(value) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    target = get_class(node["_target_"])
    try:
        return target(**values, **extra)
    except TypeError as error:
        raise ConfigError(f"{node['_target_']} does not take {values}: {error}") from error
