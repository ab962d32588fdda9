"""What the crew of a pool works with: workers, the queue, and its own threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from crossbench.errors import CrossbenchError
from crossbench.serving.gate import Gate
from crossbench.serving.ticket import Ticket
from crossbench.types import Inference, TokenBatch

Work: TypeAlias = tuple[Ticket, np.ndarray]  # a request, and the indices of its sequences to run


class Worker(Protocol):
    """Computes micro-batches. The implementation is replica.Replica."""

    def infer(self, batch: TokenBatch) -> Inference: ...

    def alive(self) -> bool:
        """Whether the worker can compute. If not, call replace() first."""
        ...

    def replace(self) -> None: ...

    def kill(self) -> bool:
        """End all calls by killing the worker's process; False if it has none."""
        ...

    def renew(self) -> None:
        """Leave the engine to the calls that hang in it; the next replace() loads another one."""
        ...

    @property
    def loading_limit_s(self) -> float | None:
        """How long the load that runs now may take; None if none runs."""
        ...

    @property
    def idle_check_s(self) -> float | None:
        """Seconds without work before calling unload_if_idle() and alive(), or None for never."""
        ...

    def unload_if_idle(self) -> float | None:
        """Unload the model if it has been idle for long enough.

        Returns the seconds after which to call unload_if_idle() again, or None for never.
        """
        ...


class Queue(Protocol):
    """The requests of the crew. The implementation is pool.Pool."""

    def next(self, number: int, pause_s: float | None) -> list[Work]:
        """Wait for work of worker `number`.

        Returns an empty list if an idle check is due or the pool is closed.
        """
        ...

    def began(self, tokens: int) -> None:
        """A micro-batch of so many tokens begins."""
        ...

    def ended(self, tokens: int, seconds: float | None) -> None:
        """It has ended after `seconds`; None if that says nothing about the worker's speed."""
        ...

    def deliver(self, work: Sequence[Work], inference: Inference, tokens: int) -> None:
        """Give the values of a micro-batch of so many tokens to its requests."""
        ...

    def fail(self, work: Sequence[Work], error: CrossbenchError) -> None: ...

    def fail_older(self, age_s: float, reason: str) -> None:
        """Fail every request, waiting or not, that came more than `age_s` ago."""
        ...

    def refuse(self, reason: str) -> None:
        """Fail all requests, and refuse new ones, for this reason; empty: accept new ones."""
        ...

    def suspend(self, number: int) -> None:
        """Give worker `number` no work until resume()."""
        ...

    def resume(self, number: int) -> None: ...


@dataclass(slots=True, eq=False)
class Member:
    """A thread and what it does. `since_s` is None unless it does something that may hang."""

    number: int
    worker: Worker
    gate: Gate | None  # for a worker with several callers
    work: Sequence[Work] = ()
    since_s: float | None = None  # time of the watch
    limit_s: float = 0.0
    killed: bool = False
    abandoned: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, now_s: float, limit_s: float) -> None:
        self.limit_s, self.killed = limit_s, False
        self.since_s = now_s

    def end(self) -> None:
        with self.lock:
            self.since_s = None

    def abandon(self, since_s: float) -> bool:
        """Leave the thread to the call that began at `since_s`; False if that has just ended."""
        with self.lock:
            self.abandoned = self.since_s == since_s
            return self.abandoned
