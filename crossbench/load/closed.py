"""load=closed: so many requests in flight, the next one whenever one was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.load.protocol import LoadContext
from crossbench.load.sender import Sender


@dataclass(frozen=True)
class ClosedLoop:
    """`concurrency` users, each sending its next request when its last one was answered.

    A request is due the moment its user becomes free, so what the client itself needs to prepare
    it counts as latency.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext

    async def drive(self, sender: Sender) -> None:
        await keep_in_flight(sender, self.context.concurrency)


async def keep_in_flight(sender: Sender, concurrency: int) -> None:
    """The closed loop itself, which also warms up whatever load is measured."""

    async def user() -> None:
        while sender.may_send():
            await sender.send(sender.now_s())

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(user())
