"""What makes two cells the same cell: the values that decide what is measured.

`RootSchema` marks each root key. Where the code lies (`_target_`) is no part of it, so moving a
class changes no identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from crossbench.settings.flatten import flatten_config
from crossbench.settings.schema import RootSchema

NOT_IDENTITY = frozenset(
    item.name for item in fields(RootSchema) if item.metadata.get("identity") is False
) | {"reference"}  # as results of schema version 1 call `predecessor`
_SHOWN_THOUGH_NOT_IDENTITY = frozenset({"repeat", "study"})

# What a result measured that was stored before the key existed. When you add a key to conf/, add
# what older cells were measured with: they then keep their identity. Null needs no entry.
VALUE_BEFORE_THE_KEY_EXISTED: Mapping[str, Any] = {
    "pipeline": "full",
    "load.task": "score",
    "load.labels": ["concurrency"],
    "pool.kind": "thread",
    "pool.cache_tokens": 0,
    "pool.routing": "load",
}


def identity_of(config: Mapping[str, Any]) -> str:
    """Hash of what defines a cell, 12 hexadecimal digits; repeats of a cell share it.

    `config` is nested or already flat (dotted keys). Null and absent are the same, equal numbers
    are (8 and 8.0), and so are a value and its text, for MLflow keeps texts alone.
    """
    identity = {
        key: text
        for key, value in flatten_config(config).items()
        if key.split(".", 1)[0] not in NOT_IDENTITY
        and value is not None
        and (text := _text(value)) != _text(VALUE_BEFORE_THE_KEY_EXISTED.get(key))
    }
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def without_bookkeeping(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without how a cell is watched and stored, which nobody compares cells by."""
    return {
        key: node
        for key, node in config.items()
        if key in _SHOWN_THOUGH_NOT_IDENTITY or key not in NOT_IDENTITY
    }


def _text(value: Any) -> str:
    plain = _canonical(value)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True, default=str)


def _canonical(value: Any) -> Any:
    """A value in which numbers that are equal are the same: 8.0 is 8."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
