"""The protocol of a contestant: it reads one command per line and writes one JSON object per line.

This file uses only the standard library, because peers run it in their own environments.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable


def answer_requests(measure: Callable[[float], dict[str, float]]) -> None:
    """Warm up, report readiness, and measure for the number of seconds in each input line."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # redirect what libraries print to standard error

    def write(answer: dict[str, object]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    measure(0.5)
    write({"ready": True})
    for line in sys.stdin:
        write(dict(measure(float(line))))
