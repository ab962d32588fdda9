"""What a cell's load contributes to the cell's name; known from its config alone."""

from __future__ import annotations

import json

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.flatten import value_text

LABELS_KEY = "load.labels"
CONCURRENCY_KEY = "concurrency"  # what names a cell of the closed loop


def load_labels(config: CellConfig) -> tuple[str, ...]:
    """The dotted keys that name a cell of this load (`concurrency`, or `load` and `load.rate`).

    Results from before loads said so are of the closed loop.
    """
    said = config.value(LABELS_KEY)
    if isinstance(said, str):  # as a frame or MLflow keeps a list
        said = json.loads(said)
    return (CONCURRENCY_KEY,) if said is None else tuple(said)


def load_description(config: CellConfig) -> str:
    """What is sent and how: the values of `batch` and of what names the load."""
    return " ".join(value_text(axis, config.texts) for axis in ("batch", *load_labels(config)))
