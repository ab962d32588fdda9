"""Python processes that ours start."""

from __future__ import annotations

import os
import sys


def child_environment() -> dict[str, str]:
    """The environment of a process that is to import what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
