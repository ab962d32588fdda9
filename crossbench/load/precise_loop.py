"""The event loop of a process that measures, whose timers are not rounded to milliseconds."""

from __future__ import annotations

import asyncio
import select
import selectors
import sys


def precise_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that does not round the time until the next timer up to milliseconds.

    asyncio's own loop on Linux does, so a request would be sent half a millisecond late on average,
    and an open loop would count that as latency of the server.
    """
    if sys.platform != "linux":  # kqueue, of macOS, takes nanoseconds
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_PreciseSelector())


if sys.platform == "linux":

    class _PreciseSelector(selectors.EpollSelector):
        """Waits for epoll's own file in select(), whose limit has microseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self], [], [], timeout)
                timeout = 0
            return super().select(timeout)
