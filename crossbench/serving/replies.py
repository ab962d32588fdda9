"""Hands the requests that the workers have finished to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

from crossbench.serving.ticket import Ticket


class Replies:
    """Wakes the event loop once for all requests that finish at the same time.

    Each wake-up from another thread is a system call, and one more turn of the loop.
    """

    def __init__(self) -> None:
        self._finished: deque[tuple[asyncio.Future[Ticket], Ticket]] = deque()
        self._woken = False

    def add(self, future: asyncio.Future[Ticket], ticket: Ticket) -> None:
        """Give `future` the result `ticket`. Safe to use from any thread."""
        self._finished.append((future, ticket))
        if not self._woken:
            self._woken = True
            future.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # In this order, since a ticket that is added from now on may find an empty queue
        self._woken = False
        while self._finished:
            future, ticket = self._finished.popleft()
            if not future.done():
                future.set_result(ticket)
