"""Schedulers decide which waiting sequences run together. They use no threads, clock or model.

A scheduler knows only (request, index, number of tokens). When a worker is idle, the pool asks for
the next micro-batch, passes the current time, and runs the result. An idle worker never waits for a
micro-batch to fill up: `take` returns whatever is in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossbench.errors import ConfigError
from crossbench.types import Int32Array


@dataclass(frozen=True, slots=True)
class Part:
    """The sequences of one request that run in one micro-batch, by their ascending indices."""

    request: int
    indices: NDArray[np.intp]


MicroBatch: TypeAlias = tuple[Part, ...]


class Scheduler(Protocol):
    """Forms the micro-batches that the pool runs. Only one thread calls it at a time."""

    @property
    def waiting(self) -> int:
        """Number of waiting sequences."""
        ...

    @property
    def overtaking(self) -> float:
        """How much longer a request waits than the work before it takes; 1 in order of arrival."""
        ...

    def add(self, request: int, lengths: Int32Array, now_s: float) -> None:
        """Add a request that arrived at `now_s`, with sequences of these token lengths (n,)."""
        ...

    def take(self, now_s: float) -> MicroBatch:
        """Remove and return the next micro-batch; it is empty if nothing waits."""
        ...

    def discard(self, request: int) -> None:
        """Remove the waiting sequences of a request that was cancelled or has failed."""
        ...


@dataclass(slots=True)
class _Waiting:
    count: int
    arrived_s: float
    taken: int = 0

    @property
    def left(self) -> int:
        return self.count - self.taken


@dataclass
class DirectScheduler:
    """Runs each request as one micro-batch in order of arrival, as the predecessor system did."""

    overtaking: ClassVar[float] = 1.0

    name: str
    waiting: int = field(default=0, init=False)
    _queue: dict[int, int] = field(default_factory=dict, init=False)

    def add(self, request: int, lengths: Int32Array, now_s: float) -> None:
        self._queue[request] = len(lengths)
        self.waiting += len(lengths)

    def take(self, now_s: float) -> MicroBatch:
        for request, count in self._queue.items():
            del self._queue[request]
            self.waiting -= count
            return (Part(request, np.arange(count)),)
        return ()

    def discard(self, request: int) -> None:
        self.waiting -= self._queue.pop(request, 0)


@dataclass
class DynamicScheduler:
    """Batches across requests in order of arrival, up to `max_batch_pairs` sequences.

    While all workers are busy, a micro-batch accepts requests that arrive within `timeout_ms` of
    its oldest one. Later requests go into the next micro-batch, so they cannot make it any slower.
    """

    overtaking: ClassVar[float] = 1.0

    name: str
    max_batch_pairs: int
    timeout_ms: float
    waiting: int = field(default=0, init=False)
    _queue: dict[int, _Waiting] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        require_at_least("scheduler.max_batch_pairs", self.max_batch_pairs, 1)
        require_at_least("scheduler.timeout_ms", self.timeout_ms, 0)

    def add(self, request: int, lengths: Int32Array, now_s: float) -> None:
        self._queue[request] = _Waiting(len(lengths), now_s)
        self.waiting += len(lengths)

    def take(self, now_s: float) -> MicroBatch:
        parts: list[Part] = []
        room, closes_s = self.max_batch_pairs, None
        # Every request has at least one sequence, so no later requests can be in this micro-batch
        for request, entry in list(islice(self._queue.items(), room)):
            if closes_s is None:
                closes_s = entry.arrived_s + self.timeout_ms * 1e-3
            if room == 0 or entry.arrived_s > closes_s:
                break
            count = min(room, entry.left)
            parts.append(Part(request, np.arange(entry.taken, entry.taken + count)))
            entry.taken += count
            room -= count
            if entry.left == 0:
                del self._queue[request]
        self.waiting -= self.max_batch_pairs - room
        return tuple(parts)

    def discard(self, request: int) -> None:
        entry = self._queue.pop(request, None)
        if entry is not None:
            self.waiting -= entry.left


def require_at_least(key: str, value: float, least: float) -> None:
    """Check a number of the config.

    Raises:
        ConfigError: the value is below `least`.
    """
    if value < least:
        raise ConfigError(
            f"{key} must be at least {least}, got {value}: give {key}={least} or more"
        )
