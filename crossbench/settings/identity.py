"""What makes two cells the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What says how a cell is watched, stored or repeated, and not what is measured
NOT_IDENTITY = (
    "repeat", "tracker", "dashboard", "quality", "outputs_dir", "cache_dir", "study", "report",
    "reference",
)  # fmt: skip


def cell_id(config: Mapping[str, Any]) -> str:
    """Hash of what defines a cell, 12 hexadecimal digits; repeats of a cell share it."""
    identity = {key: value for key, value in config.items() if key not in NOT_IDENTITY}
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without_bookkeeping(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without how a cell is watched and stored, which nobody compares cells by."""
    kept = {"repeat", "study"}
    return {key: node for key, node in config.items() if key in kept or key not in NOT_IDENTITY}
