"""The worker pool: the requests of one model, on their way to its workers and back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from crossbench.errors import CrossbenchError, DeadlineExpired, NotServing, WorkerDied
from crossbench.serving.bell import Bell
from crossbench.serving.crew import Crew
from crossbench.serving.pool_settings import Routing
from crossbench.serving.scheduler import MicroBatch, Scheduler
from crossbench.serving.speed import Speed
from crossbench.serving.ticket import Ticket
from crossbench.serving.worker import Work, Worker
from crossbench.types import Float32Array, Inference, TokenBatch

SHUTTING_DOWN = "the server is shutting down: send the request again later"


class BatchObserver(Protocol):
    """Receives the size of every micro-batch that ran. Worker threads call it."""

    def batch_done(self, pairs: int, tokens: int, tokens_computed: int, wasted: int) -> None:
        """Count a micro-batch. `wasted` of its pairs belong to requests that had ended."""
        ...


@dataclass(frozen=True, slots=True)
class PoolBacklog:
    """The work before a new request: pairs that wait, and the time until it would start."""

    pairs: int
    wait_s: float


@dataclass
class Pool:
    """The queue of one model's requests, and the crew that computes them.

    A worker that supports several concurrent callers has several entries in `workers`. With
    `routing` load, the worker that became idle last takes the next micro-batch, so that the others
    can unload their models. With round_robin, workers take turns strictly, even if the next worker
    is busy and another is idle.
    """

    scheduler: Scheduler
    workers: Sequence[Worker]
    observer: BatchObserver
    routing: Routing
    infer_timeout_s: float
    _tickets: dict[int, Ticket] = field(default_factory=dict, init=False)
    _submitted: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    _refusal: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._bells = [Bell() for _ in self.workers]  # rung only by a thread that holds the lock
        self._idle: list[int] = []
        # Idle workers that are running their idle checks and do not hear their bell
        self._unavailable: set[int] = set()
        self._turns = deque(range(len(self.workers)))
        self._waiting_tokens = 0
        self._running_tokens = 0
        self._busy_since_s = 0.0  # when the pool last began to work or finished a micro-batch
        self._pool_speed = Speed()  # per token, of all workers together
        self._worker_speed = Speed()
        self.crew = Crew(self, self.workers, self.infer_timeout_s)

    def start(self) -> None:
        self.crew.start()

    @property
    def waiting(self) -> int:
        """Number of sequences that wait for a worker."""
        with self._lock:
            return self.scheduler.waiting

    def backlog(self, now_s: float, more_tokens: float = 0.0) -> PoolBacklog:
        """Return what a new request would wait for: the queue, running work, and `more_tokens`.

        The time is 0 before the first micro-batch has shown how fast a worker is.
        """
        with self._lock:
            queued_s = self._pool_speed.seconds(self._waiting_tokens + more_tokens)
            wait_s = self.scheduler.overtaking * queued_s
            if self._running_tokens:
                running_s = self._pool_speed.seconds(self._running_tokens)
                wait_s += max(running_s - (now_s - self._busy_since_s), 0.0)
            return PoolBacklog(self.scheduler.waiting, wait_s)

    def infer_s(self, tokens: float) -> float:
        """Return how long one worker computes so many tokens; 0 before the first micro-batch."""
        with self._lock:
            return self._worker_speed.seconds(tokens)

    def submit(
        self, batch: TokenBatch, deadline_s: float | None, done: Callable[[Ticket], None]
    ) -> Ticket:
        """Add a request's sequences to the queue.

        Raises:
            NotServing: no worker can serve, or the pool is closed.
        """
        now_s = time.perf_counter()
        with self._lock:
            if self._refusal:
                raise NotServing(self._refusal)
            self._submitted += 1
            ticket = Ticket(self._submitted, batch, deadline_s, done, now_s, len(batch))
            self._tickets[ticket.number] = ticket
            ticket.waiting_tokens = batch.total_tokens
            self._waiting_tokens += ticket.waiting_tokens
            self.scheduler.add(ticket.number, batch.lengths, now_s)
            self._wake()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Remove a request's waiting sequences. Its `done` is not called."""
        with self._lock:
            ticket.closed = True
            self._forget(ticket)

    def close(self) -> None:
        """Fail all requests, and stop the workers after their current micro-batches.

        A worker that hangs is left behind.
        """
        self.shut()
        self.crew.close()

    def shut(self) -> None:
        """Fail all requests, and refuse new ones."""
        self.refuse(SHUTTING_DOWN)
        with self._lock:
            self._closed = True
            for bell in self._bells:
                bell.ring()

    def refuse(self, reason: str) -> None:
        """Fail all requests and refuse new ones; with an empty reason, accept them again."""
        with self._lock:
            if self._closed:
                return
            self._refusal = reason
            for ticket in list(self._tickets.values()) if reason else ():
                self._close(ticket, NotServing(reason))

    def fail_older(self, age_s: float, reason: str) -> None:
        """Fail all requests that came more than `age_s` ago."""
        oldest_s = time.perf_counter() - age_s
        with self._lock:
            for ticket in list(self._tickets.values()):
                if ticket.submitted_s < oldest_s:
                    self._close(ticket, NotServing(reason))

    def suspend(self, number: int) -> None:
        """Give a worker no work until resume()."""
        with self._lock:
            if number in self._turns:
                self._turns.remove(number)
            if number in self._idle:
                self._idle.remove(number)
            if self.scheduler.waiting:
                self._wake()

    def resume(self, number: int) -> None:
        with self._lock:
            if number not in self._turns:
                self._turns.append(number)

    def next(self, number: int, pause_s: float | None) -> list[Work]:
        """Wait for work; return an empty list if an idle check is due or the pool is closed."""
        bell = self._bells[number]
        while True:
            with self._lock:
                self._unavailable.discard(number)
                while micro_batch := self._take(number):
                    if work := self._drop_expired(micro_batch):
                        return work
                if self._closed:
                    return []
                if number not in self._idle:
                    self._idle.append(number)
            if bell.wait(pause_s):
                continue
            with self._lock:
                if not bell.wait(0.0):  # it was not rung since, either
                    self._unavailable.add(number)
                    return []

    def _may_take(self, number: int) -> bool:
        return self.routing == "load" or self._turns[0] == number

    def _take(self, number: int) -> MicroBatch:
        if not self._may_take(number):
            return ()
        micro_batch = self.scheduler.take(time.perf_counter())
        if micro_batch:
            self._turns.rotate(-1)
            if number in self._idle:  # it took work without having been woken
                self._idle.remove(number)
            if self.scheduler.waiting:
                self._wake()
        return micro_batch

    def _wake(self) -> None:
        """Wake the next worker. Busy workers check the queue themselves when they finish."""
        if self.routing == "round_robin":
            if self._turns:
                self._bells[self._turns[0]].ring()
        elif available := [number for number in self._idle if number not in self._unavailable]:
            self._idle.remove(available[-1])
            self._bells[available[-1]].ring()

    def _drop_expired(self, micro_batch: MicroBatch) -> list[Work]:
        """Return the parts to run. Fail requests past their deadline, and skip closed ones."""
        now_s = time.perf_counter()
        work: list[Work] = []
        for part in micro_batch:
            ticket = self._tickets.get(part.request)
            if ticket is None or ticket.closed:
                continue
            tokens = ticket.tokens_of(part.indices)
            ticket.waiting_tokens -= tokens
            self._waiting_tokens -= tokens
            if ticket.deadline_s is not None and now_s > ticket.deadline_s:
                waited_ms = (now_s - ticket.submitted_s) * 1e3
                self._close(
                    ticket,
                    DeadlineExpired(f"the deadline passed after {waited_ms:.0f} ms in the queue"),
                )
                continue
            if not ticket.started_s:
                ticket.started_s = now_s
            work.append((ticket, part.indices))
        return work

    def began(self, tokens: int) -> None:
        """A worker begins a micro-batch of so many tokens."""
        with self._lock:
            if not self._running_tokens:
                self._busy_since_s = time.perf_counter()
            self._running_tokens += tokens

    def ended(self, tokens: int, seconds: float | None) -> None:
        """The micro-batch has ended after `seconds`; None if that does not show its speed."""
        now_s = time.perf_counter()
        with self._lock:
            self._running_tokens -= tokens
            if seconds is not None:
                self._pool_speed.add(tokens, now_s - self._busy_since_s)
                self._worker_speed.add(tokens, seconds)
            self._busy_since_s = now_s

    def deliver(self, work: Sequence[Work], inference: Inference, tokens: int) -> None:
        """Give the values of a micro-batch of so many tokens to its requests.

        Raises:
            WorkerDied: there is not one value per sequence.
        """
        pairs = sum(len(rows) for _, rows in work)
        if len(inference.values) != pairs:
            raise WorkerDied(f"{len(inference.values)} values for {pairs} sequences")
        finished_s = time.perf_counter()
        wasted = sum(len(rows) for ticket, rows in work if ticket.closed)
        self.observer.batch_done(pairs, tokens, inference.tokens_computed, wasted)
        start = 0
        with self._lock:  # several workers may finish parts of one request at the same time
            for ticket, rows in work:
                values = inference.values[start : start + len(rows)]
                start += len(rows)
                if not ticket.closed:
                    self._deliver(ticket, rows, values, finished_s)

    def fail(self, work: Sequence[Work], error: CrossbenchError) -> None:
        """Fail the requests of a micro-batch that are not answered yet."""
        with self._lock:
            for ticket, _ in work:
                if not ticket.closed:
                    self._close(ticket, error)

    def _deliver(
        self, ticket: Ticket, rows: np.ndarray, values: Float32Array, finished_s: float
    ) -> None:
        if ticket.values is None:
            ticket.values = np.empty((len(ticket.batch), *values.shape[1:]), dtype=np.float32)
        ticket.values[rows] = values
        ticket.left -= len(rows)
        ticket.finished_s = finished_s
        if not ticket.left:
            self._close(ticket, None)

    def _close(self, ticket: Ticket, error: CrossbenchError | None) -> None:
        ticket.closed = True
        ticket.error = error
        self._forget(ticket)
        ticket.done(ticket)

    def _forget(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.number, None)
        self._waiting_tokens -= ticket.waiting_tokens
        ticket.waiting_tokens = 0
        self.scheduler.discard(ticket.number)
