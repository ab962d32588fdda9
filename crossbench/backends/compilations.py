"""How often torch.compile has compiled in this process: while measured, it should not."""

from __future__ import annotations

import sys


def compilations() -> int | None:
    """Graphs that torch.compile made here so far; None where nothing here has used it."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    graphs = 0 if dynamo is None else int(dynamo.counters["stats"]["unique_graphs"])
    return graphs or None
