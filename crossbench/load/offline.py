"""load=offline: every request is due at once, as when a whole corpus is scored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from crossbench.load.open_loop import check_max_in_flight
from crossbench.load.protocol import LoadContext
from crossbench.load.schedule import Schedule
from crossbench.load.sender import Sender


@dataclass(frozen=True)
class Offline:
    """All of the cell's `requests` are due at the start; at most `max_in_flight` wait for replies.

    Its throughput is that of a server that never lacks work. A request's latency is the time from
    the start until its reply, so it says when a request's turn came.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext
    max_in_flight: int | None
    schedule: Schedule = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_max_in_flight(self.max_in_flight)
        due_s = np.zeros(self.context.stop.requests)
        object.__setattr__(self, "schedule", Schedule(due_s))

    async def drive(self, sender: Sender) -> None:
        async def slot() -> None:
            while sender.may_send():  # until max_seconds: every request is due before that
                await sender.send(0.0)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.max_in_flight or len(self.schedule)):
                group.create_task(slot())
