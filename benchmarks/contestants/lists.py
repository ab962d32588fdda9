"""The texts that the clients of a benchmark send, of which each makes its own requests."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def batches(lists: Path, batch: int) -> list[tuple[str, list[str]]]:
    """Return query and `batch` passages of each request; `lists` is [[query, [passage, ...]], ...].

    Raises:
        SystemExit: no query has so many passages.
    """
    found = [
        (query, passages[start : start + batch])
        for query, passages in json.loads(lists.read_text("utf-8"))
        for start in range(0, len(passages) - batch + 1, batch)
    ]
    if not found:
        sys.exit(f"{lists}: no query has {batch} passages")
    return found
