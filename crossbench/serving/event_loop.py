"""The event loop of a process that only serves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop, which needs less time for each wake-up than asyncio's own loop.

    Its clock counts milliseconds, so a process that also measures latency must not use it.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
