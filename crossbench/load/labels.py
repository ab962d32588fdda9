"""The part of a cell's name that describes its load, derived from the config alone."""

from __future__ import annotations

import json

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.flatten import value_text

LABELS_KEY = "load.labels"
CONCURRENCY_KEY = "concurrency"  # appears in the name of a cell with the closed loop


def load_labels(config: CellConfig) -> tuple[str, ...]:
    """Return the config keys that appear in the cell's name: `concurrency`, `load.rate`, ….

    Old results lack `load.labels` and always used the closed loop.
    """
    labels = config.value(LABELS_KEY)
    if isinstance(labels, str):  # data frames and MLflow store lists as text
        labels = json.loads(labels)
    return (CONCURRENCY_KEY,) if labels is None else tuple(labels)


def load_description(config: CellConfig) -> str:
    """Describe the load in a few words: `batch=32 concurrency=4`."""
    return " ".join(value_text(axis, config.texts) for axis in ("batch", *load_labels(config)))
