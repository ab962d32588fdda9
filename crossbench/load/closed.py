"""load=closed: a closed loop with a fixed number of requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.load.protocol import LoadContext
from crossbench.load.sender import Sender


@dataclass(frozen=True)
class ClosedLoop:
    """`concurrency` users that each send a request as soon as the previous one is answered.

    A request is due when its user becomes free, so latency includes the client's own preparation.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext

    async def drive(self, sender: Sender) -> None:
        await keep_in_flight(sender, self.context.concurrency)


async def keep_in_flight(sender: Sender, concurrency: int) -> None:
    """Run the closed loop. The warm-up uses it too, whatever load is measured."""

    async def user() -> None:
        while sender.may_send():
            await sender.send(sender.now_s())

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(user())
