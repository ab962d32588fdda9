"""How a contestant talks to the benchmark: one command per line in, one JSON object per line out.

Standard library only, since peers run this file in environments of their own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable


def obey(measure: Callable[[float], dict[str, float]]) -> None:
    """Say that the contestant is warm, then measure for as many seconds as each line asks."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is not an answer

    def say(answer: dict[str, object]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    measure(0.5)
    say({"ready": True})
    for line in sys.stdin:
        say(dict(measure(float(line))))
