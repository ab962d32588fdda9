"""What a cell's load contributes to the cell's name; known from its config alone."""

from __future__ import annotations

import json
from collections.abc import Mapping

CLOSED = ("concurrency",)


def load_labels(flat: Mapping[str, str]) -> tuple[str, ...]:
    """The dotted keys that name a cell of this load, from its flat config (`flatten_text`).

    Results from before loads said so (`load.labels`) are of the closed loop.
    """
    said = flat.get("load.labels")
    if said is None:
        return CLOSED
    return tuple(json.loads(said))
