"""Which waiting sequences run together next. Pure policy: no threads, no clock, no model.

A scheduler knows only (request, index, number of tokens). The pool tells it the time, asks it for
a micro-batch whenever a worker is idle, and runs what it answers. An idle worker never waits:
`take` answers with whatever is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crossbench.errors import ConfigError
from crossbench.types import Int32Array


@dataclass(frozen=True, slots=True)
class Part:
    """Sequences of one request that run in one micro-batch, by their index in the request."""

    request: int
    indices: NDArray[np.intp]


MicroBatch: TypeAlias = tuple[Part, ...]


class Scheduler(Protocol):
    """Decides what runs next; the pool executes. Calls come from one thread at a time."""

    @property
    def waiting(self) -> int:
        """Sequences that wait."""
        ...

    def add(self, request: int, lengths: Int32Array, now_s: float) -> None:
        """A request's sequences of these token lengths, shape (n,), arrived at `now_s`."""
        ...

    def take(self, now_s: float) -> MicroBatch:
        """The next micro-batch for an idle worker; empty when nothing waits."""
        ...

    def discard(self, request: int) -> None:
        """Forget what still waits of a request that was cancelled or has failed."""
        ...


@dataclass(slots=True)
class _Waiting:
    lengths: Int32Array
    arrived_s: float
    taken: int = 0

    @property
    def left(self) -> int:
        return len(self.lengths) - self.taken


@dataclass
class DirectScheduler:
    """Each request is one model batch, first come, first served: the predecessor system's way."""

    name: str
    _queue: dict[int, int] = field(default_factory=dict, init=False)

    @property
    def waiting(self) -> int:
        return sum(self._queue.values())

    def add(self, request: int, lengths: Int32Array, now_s: float) -> None:
        self._queue[request] = len(lengths)

    def take(self, now_s: float) -> MicroBatch:
        for request, count in self._queue.items():
            del self._queue[request]
            return (Part(request, np.arange(count)),)
        return ()

    def discard(self, request: int) -> None:
        self._queue.pop(request, None)


@dataclass
class DynamicScheduler:
    """First come, first served across requests, up to `max_batch_pairs` sequences at once.

    While all workers are busy a micro-batch stays open to later requests for `timeout_ms` from its
    first sequence's arrival; what comes after that goes into the next one. So a request is never
    held up by more than the company it got within the time limit.
    """

    name: str
    max_batch_pairs: int
    timeout_ms: float
    _queue: dict[int, _Waiting] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        require_at_least("scheduler.max_batch_pairs", self.max_batch_pairs, 1)
        require_at_least("scheduler.timeout_ms", self.timeout_ms, 0)

    @property
    def waiting(self) -> int:
        return sum(entry.left for entry in self._queue.values())

    def add(self, request: int, lengths: Int32Array, now_s: float) -> None:
        self._queue[request] = _Waiting(lengths, now_s)

    def take(self, now_s: float) -> MicroBatch:
        parts: list[Part] = []
        room, closes_s = self.max_batch_pairs, None
        for request, entry in list(self._queue.items()):
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
        return tuple(parts)

    def discard(self, request: int) -> None:
        self._queue.pop(request, None)


def require_at_least(key: str, value: float, least: float) -> None:
    """Refuse a configured number that is too small.

    Raises:
        ConfigError: naming the key, the value given and the least that works.
    """
    if value < least:
        raise ConfigError(
            f"{key} must be at least {least}, got {value}: give {key}={least} or more"
        )
