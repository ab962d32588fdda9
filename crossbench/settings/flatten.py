"""A config as one level of dotted keys, as values or as text for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted key, as it is; a group's own key holds its `name`.

    Keys that begin with an underscore (`_target_`) say how a thing is made and are left out.
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
    """`flatten_config` for people: each value as text, `***` for the credentials in a URI."""
    return {
        key: without_credentials(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        for key, value in flatten_config(config).items()
    }


def without_credentials(text: str) -> str:
    """`text` with `***` for the user and password of every URI in it."""
    return _CREDENTIALS.sub("***@", text)


def value_text(axis: str, flat: Mapping[str, str]) -> str:
    """A value as part of a name: `pytorch`, but `batch=32`, for a number says nothing alone."""
    value = flat.get(axis, "–")
    if is_number(value) or value in {"true", "false", "null", "–"}:
        return f"{axis.rsplit('.', 1)[-1]}={value}"
    return value


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
