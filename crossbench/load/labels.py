"""What a cell's load contributes to the cell's name; known from its config alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from crossbench.settings.flatten import flatten_text, value_text

LABELS_KEY = "load.labels"
IN_FLIGHT = "concurrency"  # what names a cell of the closed loop


def load_labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The dotted keys that name a cell of this load (`concurrency`, or `load` and `load.rate`).

    `config` is nested or flat. Results from before loads said so are of the closed loop.
    """
    node = config.get("load")
    said = node.get("labels") if isinstance(node, Mapping) else config.get(LABELS_KEY)
    if isinstance(said, str):  # as a frame or MLflow keeps a list
        said = json.loads(said)
    return (IN_FLIGHT,) if said is None else tuple(said)


def load_text(config: Mapping[str, Any]) -> str:
    """What is sent and how: the values of `batch` and of what names the load."""
    flat = flatten_text(config)
    return " ".join(value_text(axis, flat) for axis in ("batch", *load_labels(config)))
