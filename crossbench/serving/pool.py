"""The worker pool: threads that run the scheduler's micro-batches on the replicas of one model."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from crossbench.errors import CrossbenchError, DeadlineExpired, WorkerDied
from crossbench.serving.bell import Bell
from crossbench.serving.pool_settings import Routing
from crossbench.serving.scheduler import MicroBatch, Scheduler
from crossbench.serving.speed import Speed
from crossbench.serving.ticket import Ticket
from crossbench.types import Float32Array, Inference, TokenBatch
from crossbench.wording import error_text

log = logging.getLogger(__name__)

_SHUTTING_DOWN = "the server is shutting down: send the request again later"


class Worker(Protocol):
    """Computes micro-batches. The implementation is replica.Replica."""

    def infer(self, batch: TokenBatch) -> Inference: ...

    def alive(self) -> bool:
        """Whether the worker can compute. If not, call replace() first."""
        ...

    def replace(self) -> None: ...

    @property
    def idle_check_s(self) -> float | None:
        """Seconds without work before calling unload_if_idle() and alive(), or None for never."""
        ...

    def unload_if_idle(self) -> float | None:
        """Unload the model if it has been idle for long enough.

        Returns the seconds after which to call unload_if_idle() again, or None for never.
        """
        ...


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


Work: TypeAlias = tuple[Ticket, np.ndarray]  # a request, and the indices of its sequences to run


@dataclass
class Pool:
    """Runs the scheduler's micro-batches, with one thread per entry of `workers`.

    A worker that supports several concurrent callers has several entries. With `routing` load, the
    worker that became idle last takes the next micro-batch, so that the others can unload their
    models. With round_robin, workers take turns strictly, even if the next worker is busy and
    another is idle.
    """

    scheduler: Scheduler
    workers: Sequence[Worker]
    observer: BatchObserver
    routing: Routing
    _tickets: dict[int, Ticket] = field(default_factory=dict, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _submitted: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

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

    def start(self) -> None:
        for number, worker in enumerate(self.workers):
            thread = threading.Thread(
                target=self._serve, args=(number, worker), name=f"worker-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

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
            wait_s = self._pool_speed.seconds(self._waiting_tokens + more_tokens)
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
            WorkerDied: the pool is closed.
        """
        now_s = time.perf_counter()
        with self._lock:
            if self._closed:
                raise WorkerDied(_SHUTTING_DOWN)
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
        """Stop the workers after their current micro-batches. Waiting requests fail."""
        with self._lock:
            self._closed = True
            tickets = list(self._tickets.values())
            for bell in self._bells:
                bell.ring()
        for ticket in tickets:
            self._fail(ticket, WorkerDied(_SHUTTING_DOWN))
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int, worker: Worker) -> None:
        while True:
            if not worker.alive():
                self._replace(number, worker)
            pause_s = worker.idle_check_s
            while not (micro_batch := self._next(number, pause_s)):
                if self._closed:
                    return
                pause_s = self._check_idle(worker)
                if not worker.alive():
                    break
            else:
                self._run(worker, micro_batch)

    def _next(self, number: int, pause_s: float | None) -> list[Work]:
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

    def _check_idle(self, worker: Worker) -> float | None:
        """Call unload_if_idle() without the lock, since it takes time. Errors are only logged."""
        try:
            return worker.unload_if_idle()
        except Exception:
            log.exception("a worker could not unload its model")
            return worker.idle_check_s

    def _replace(self, number: int, worker: Worker) -> None:
        """Replace a dead worker. It receives no work in the meantime."""
        with self._lock:
            self._turns.remove(number)
            if number in self._idle:
                self._idle.remove(number)
            if self.scheduler.waiting:
                self._wake()
        try:
            worker.replace()
        except Exception:
            log.exception("a worker could not be replaced; its next micro-batch tries again")
        with self._lock:
            self._turns.append(number)

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

    def _run(self, worker: Worker, work: list[Work]) -> None:
        """Run a micro-batch. An error fails only its requests, and the thread goes on."""
        try:
            self._compute(worker, work)
        except Exception as error:
            log.exception("a worker failed on a micro-batch of %d requests", len(work))
            reason = error
            if not isinstance(reason, WorkerDied):
                reason = WorkerDied(f"the worker failed: {error_text(error)}")
            for ticket, _ in work:
                self._fail(ticket, reason)

    def _compute(self, worker: Worker, work: list[Work]) -> None:
        batch = TokenBatch.concatenate([ticket.part(rows) for ticket, rows in work])
        tokens, started_s = batch.total_tokens, time.perf_counter()
        with self._lock:
            if not self._running_tokens:
                self._busy_since_s = started_s
            self._running_tokens += tokens
        try:
            inference = worker.infer(batch)
        finally:
            finished_s = time.perf_counter()
            with self._lock:
                self._running_tokens -= tokens
                self._pool_speed.add(tokens, finished_s - self._busy_since_s)
                self._worker_speed.add(tokens, finished_s - started_s)
                self._busy_since_s = finished_s
        if len(inference.values) != len(batch):
            raise WorkerDied(
                f"the backend returned {len(inference.values)} values for {len(batch)} sequences: "
                "it must return one value per sequence"
            )
        wasted = sum(len(rows) for ticket, rows in work if ticket.closed)
        self.observer.batch_done(len(batch), tokens, inference.tokens_computed, wasted)
        start = 0
        with self._lock:  # several workers may finish parts of one request at the same time
            for ticket, rows in work:
                values = inference.values[start : start + len(rows)]
                start += len(rows)
                if not ticket.closed:
                    self._deliver(ticket, rows, values, finished_s)

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

    def _fail(self, ticket: Ticket, error: CrossbenchError) -> None:
        with self._lock:
            if not ticket.closed:
                self._close(ticket, error)

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
