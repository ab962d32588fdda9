"""The environment of Python child processes."""

from __future__ import annotations

import os
import sys


def child_environment() -> dict[str, str]:
    """Return this process's environment with a PYTHONPATH that has its whole import path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
