"""load=ramp: the load rises in steps within one cell."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from crossbench.errors import ConfigError
from crossbench.load.open_loop import MAX_IN_FLIGHT, check_max_in_flight, follow
from crossbench.load.protocol import LoadContext
from crossbench.load.schedule import Schedule, arrivals
from crossbench.load.sender import Sender
from crossbench.measure.steps import Step


@dataclass(frozen=True)
class Ramp:
    """Equally long steps that fill the cell's `max_seconds`.

    `of` says what `levels` are: the rate in requests/s, as of load=poisson, or the concurrency of a
    closed loop. A step of concurrency begins when its time has come, and lets the requests of the
    step before it end. A ramp of the rate ends early in a step that over-saturates the server.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext
    of: Literal["concurrency", "rate"]
    levels: Sequence[float]
    max_in_flight: int | None
    schedule: Schedule | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_max_in_flight(self.max_in_flight)
        if not self.levels or not all(0 < level < math.inf for level in self.levels):
            raise ConfigError(
                f"load.levels must be positive numbers, got {list(self.levels)}: give for example "
                "load.levels=[1,2,4]"
            )
        if self.of == "concurrency" and any(
            level > MAX_IN_FLIGHT or int(level) != level for level in self.levels
        ):
            raise ConfigError(
                f"load.levels must be whole numbers up to {MAX_IN_FLIGHT} with "
                f"load.of=concurrency, got {list(self.levels)}: give for example "
                "load.levels=[1,2,4], or load.of=rate"
            )
        object.__setattr__(self, "schedule", self._schedule())

    @property
    def steps(self) -> tuple[Step, ...]:
        """When each level begins and ends, in seconds since the start of the measurement."""
        length_s = self.context.limits.max_seconds / len(self.levels)
        return tuple(
            Step(f"{self.of}={level:g}", number * length_s, (number + 1) * length_s)
            for number, level in enumerate(self.levels)
        )

    async def drive(self, sender: Sender) -> None:
        if self.schedule is not None:
            steps_s = [step.start_s for step in self.steps]
            await follow(self.schedule, sender, self.max_in_flight, steps_s)
            return
        async with asyncio.TaskGroup() as group:
            for number in range(int(max(self.levels))):
                group.create_task(self._user(sender, number))

    async def _user(self, sender: Sender, number: int) -> None:
        """Send one request after the other in every step that has more users than `number`."""
        levels = zip(self.steps, self.levels, strict=True)
        mine = [step for step, level in levels if number < level]
        while sender.may_send():
            now_s = sender.now_s()
            if (step := next((step for step in mine if now_s < step.end_s), None)) is None:
                return
            if now_s >= step.start_s:
                await sender.send(now_s)
            elif not await sender.wait_until(step.start_s):
                return

    def _schedule(self) -> Schedule | None:
        if self.of != "rate":
            return None
        rng, most = np.random.default_rng(self.context.seed), self.context.limits.requests
        parts = [
            step.start_s + arrivals(level, 1.0, step.end_s - step.start_s, most, rng)
            for step, level in zip(self.steps, self.levels, strict=True)
        ]
        return Schedule(np.concatenate(parts)[:most])
