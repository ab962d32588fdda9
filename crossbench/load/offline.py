"""load=offline: every request is due at once, as when a whole corpus is scored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.load.open_loop import check_max_in_flight
from crossbench.load.protocol import LoadContext
from crossbench.load.sender import Sender


@dataclass(frozen=True)
class Offline:
    """All requests are due at the start, and at most `max_in_flight` of them wait for replies.

    Its throughput is that of a server that never lacks work. A request's latency is the time from
    the start until its reply, so it shows when the request's turn came.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext
    max_in_flight: int

    def __post_init__(self) -> None:
        check_max_in_flight(self.max_in_flight)

    async def drive(self, sender: Sender) -> None:
        async def slot() -> None:
            while sender.may_send():
                await sender.send(0.0)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.max_in_flight):
                group.create_task(slot())
