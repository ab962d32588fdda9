"""A server in virtual time: the real scheduler, in front of workers that only sleep."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from crossbench.load.sender import loop_time_s
from crossbench.serving.client import Message, Reply, message_size
from crossbench.serving.scheduler import Scheduler
from crossbench.types import Timing


@dataclass
class VirtualServer:
    """Takes the place of the client: `send` answers after the request waited and was computed.

    `service_s` draws how long a micro-batch takes.
    """

    scheduler: Scheduler
    service_s: Callable[[], float]
    workers: int = 1
    _numbers: itertools.count[int] = field(default_factory=itertools.count, init=False)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition, init=False)
    _started_s: dict[int, float] = field(default_factory=dict, init=False)
    _done: dict[int, asyncio.Event] = field(default_factory=dict, init=False)

    async def __aenter__(self) -> VirtualServer:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self.workers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def send(self, message: Message, timeout_s: float | None = None) -> Reply:
        """Queue a request, wait until a worker has computed it, and return the stages' times."""
        number, size, arrived_s = next(self._numbers), message_size(message), loop_time_s()
        done = self._done[number] = asyncio.Event()
        self.scheduler.add(number, np.ones(size, dtype=np.int32), arrived_s)
        async with self._arrived:
            self._arrived.notify()
        await done.wait()
        started_s = self._started_s.pop(number)
        timing = Timing(0.0, (started_s - arrived_s) * 1e3, (loop_time_s() - started_s) * 1e3)
        return Reply(np.zeros(size, dtype=np.float32), timing, size, 0)

    async def _work(self) -> None:
        while True:
            async with self._arrived:
                while not (micro_batch := self.scheduler.take(loop_time_s())):
                    await self._arrived.wait()
            for part in micro_batch:
                self._started_s[part.request] = loop_time_s()
            await asyncio.sleep(self.service_s())
            for part in micro_batch:
                self._done.pop(part.request).set()
