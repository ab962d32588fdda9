"""The identity of a cell: a hash of the values that decide what is measured.

`RootSchema` marks the root keys that do not count. `_target_` does not count either, so that moving
a class to another module changes no identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from crossbench.settings.flatten import flatten_config
from crossbench.settings.schema import RootSchema
from crossbench.system.credentials import hide_config

NOT_IDENTITY = frozenset(
    item.name for item in fields(RootSchema) if item.metadata.get("identity") is False
) | {"reference"}  # the name of `predecessor` in results of schema version 1
_SHOWN_THOUGH_NOT_IDENTITY = frozenset({"repeat", "study"})

# For each key that was added to conf/ later: the value that older results were measured with, so
# that they keep their identity. When you add a key, add its line. Null needs none.
VALUE_BEFORE_THE_KEY_EXISTED: Mapping[str, Any] = {
    "pipeline": "full",
    "load.task": "score",
    "load.labels": ["concurrency"],
    "stop": "fixed",
    "backend.service_us_per_pair": 0,
    "backend.service_kind": "sleep",
    "pool.kind": "thread",
    "pool.cache_tokens": 0,
    "pool.routing": "load",
    "server.max_text_bytes": 262_144,  # there was no limit; no request that was measured reaches it
    "server.max_pending_requests": 1000,
    "pool.infer_timeout_s": 120,  # no micro-batch that was measured took as long
    "server.connections.max_connections": 4096,
    "server.connections.max_requests": 20_000,
    "server.connections.max_watchers": 16,
    "server.connections.idle_s": 600,
    "server.http.receive_s": 30,
}


def identity_of(config: Mapping[str, Any]) -> str:
    """Return the hash of what defines a cell: 12 hexadecimal digits, the same for its repeats.

    `config` is nested or flat (dotted keys). A null value counts as absent, equal numbers (8 and
    8.0) count as the same, and so do a value and its text, because MLflow stores only texts.
    Credentials do not count, because results do not have them.
    """
    identity = {
        key: text
        for key, value in flatten_config(hide_config(config)).items()
        if key.split(".", 1)[0] not in NOT_IDENTITY
        and value is not None
        and (text := _text(value)) != _text(VALUE_BEFORE_THE_KEY_EXISTED.get(key))
    }
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def without_bookkeeping(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without the keys that only say how a cell is watched and stored."""
    return {
        key: node
        for key, node in config.items()
        if key in _SHOWN_THOUGH_NOT_IDENTITY or key not in NOT_IDENTITY
    }


def _text(value: Any) -> str:
    plain = _canonical(value)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True, default=str)


def _canonical(value: Any) -> Any:
    """Return the value with whole floats as ints: 8.0 becomes 8."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
