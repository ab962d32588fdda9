"""The number of torch.compile compilations in this process; a measurement should cause none."""

from __future__ import annotations

import sys


def compilation_count() -> int | None:
    """Return how many graphs torch.compile has compiled in this process; None if none."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    graphs = 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
    return graphs or None
