"""Flatten a config to one level of dotted keys, with the values as they are or as text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from crossbench.system.credentials import hide_config

# Keys whose values are clear without the key: choices of config groups, and devices
_CLEAR_ALONE = frozenset(
    {
        "model", "backend", "quant", "scheduler", "pool", "server", "target", "load", "dataset",
        "quality", "tracker", "dashboard", "device",
    }
)  # fmt: skip


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value by its dotted key; a config group's own key has the name of the choice.

    Keys that begin with an underscore (`_target_`) are left out.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key.startswith("_"):
            continue
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            inside = flatten_config(value, f"{path}.")
            if (name := inside.pop(f"{path}.name", None)) is not None:
                flat[path] = name
            flat |= inside
        else:
            flat[path] = value
    return flat


def flatten_text(config: Mapping[str, Any]) -> dict[str, str]:
    """Return `flatten_config` with each value as text, and `***` for credentials."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for key, value in flatten_config(hide_config(config)).items()
    }


def value_text(axis: str, flat: Mapping[str, str]) -> str:
    """Return a value as part of a cell's name: `pytorch` for a choice, else `batch=32`."""
    value = " ".join(flat.get(axis, "–").split())  # a name has one line
    if axis in _CLEAR_ALONE and not is_number(value) and value not in {"none", "null", "–"}:
        return value
    return f"{axis.rsplit('.', 1)[-1]}={value}"


def is_number(text: str) -> bool:
    """Return whether `text` is a finite number: `infinity` may be the name of a server."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
