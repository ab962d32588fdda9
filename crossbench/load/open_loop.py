"""load=constant, poisson, gamma: requests are due by a schedule, whatever the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from crossbench.errors import ConfigError
from crossbench.load.protocol import LoadContext
from crossbench.load.saturation import SaturationWatch
from crossbench.load.schedule import Schedule, arrivals
from crossbench.load.sender import Sender

MAX_IN_FLIGHT = 100_000  # requests; more would only fill the client's memory


@dataclass(frozen=True)
class OpenLoop:
    """Independent requests at `rate` requests/s; see `schedule.arrivals` for `cv`.

    At most `max_in_flight` requests wait for their replies at a time (None: no limit). What this
    holds back is sent late, never dropped: latency counts from when a request was due.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext
    rate: float
    cv: float
    max_in_flight: int | None
    schedule: Schedule = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_max_in_flight(self.max_in_flight)
        context, rng = self.context, np.random.default_rng(self.context.seed)
        due_s = arrivals(self.rate, self.cv, context.longest_s, context.limits.requests, rng)
        object.__setattr__(self, "schedule", Schedule(due_s))

    async def drive(self, sender: Sender) -> None:
        await follow(self.schedule, sender, self.max_in_flight)
        sender.may_send(self.context.longest_s)  # notes which limit ended the schedule


def check_max_in_flight(value: int | None) -> None:
    """Raises:
    ConfigError: it is neither None nor between 1 and MAX_IN_FLIGHT.
    """
    if value is not None and not 1 <= value <= MAX_IN_FLIGHT:
        raise ConfigError(
            f"load.max_in_flight must be a whole number from 1 to {MAX_IN_FLIGHT}, got {value}: "
            "give for example load.max_in_flight=1000"
        )


async def follow(
    schedule: Schedule,
    sender: Sender,
    max_in_flight: int | None,
    steps_s: Sequence[float] = (0.0,),
) -> None:
    """Send each request when it is due, and wait for all replies.

    Sending ends early once the server is clearly over-saturated. Each step of a ramp, which begin
    at `steps_s`, is judged by itself.
    """
    firsts = [int(first) for first in np.searchsorted(schedule.due_s, steps_s)]
    slots = asyncio.Semaphore(max_in_flight or len(schedule) or 1)
    async with asyncio.TaskGroup() as in_flight:
        for first, end in pairwise([*firsts, len(schedule)]):
            watch = SaturationWatch(schedule.part(first, end).variation)
            for due_s, size in schedule.part(first, end):
                if not await sender.wait_until(due_s):
                    break
                await slots.acquire()
                due = int(np.searchsorted(schedule.due_s, sender.now_s(), side="right"))
                if watch.is_over_saturated(due - first, len(sender.records) - first):
                    sender.end_over_saturated()
                    return
                task = in_flight.create_task(sender.send(due_s, size))
                task.add_done_callback(lambda _: slots.release())
            if watch.was_over_saturated():
                sender.over_saturated = True
                if end < len(schedule):  # the backlog would be that of the next step too
                    sender.end_over_saturated()
                return
