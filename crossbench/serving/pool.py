"""The worker pool: replicas of one model that run the micro-batches which the scheduler forms."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from crossbench.errors import CrossbenchError, DeadlineExpired, QueueFull, WorkerDied
from crossbench.serving.pool_settings import Routing
from crossbench.serving.scheduler import MicroBatch, Scheduler
from crossbench.types import Float32Array, Inference, TokenBatch

log = logging.getLogger(__name__)

_ENDING = "the server is shutting down: send the request again"


class Worker(Protocol):
    """What computes micro-batches: see replica.Replica."""

    def infer(self, batch: TokenBatch) -> Inference: ...

    def alive(self) -> bool:
        """Whether it may be given work; if not, replace() it first."""
        ...

    def replace(self) -> None: ...

    @property
    def idle_check_s(self) -> float | None:
        """After how many seconds without work to look after it: rest(), and alive(); or never."""
        ...

    def rest(self) -> float | None:
        """Free what is due; answers as `idle_check_s` does."""
        ...


class BatchObserver(Protocol):
    """Hears of every micro-batch that ran (called from worker threads)."""

    def batch_done(self, pairs: int, tokens: int, tokens_computed: int) -> None: ...


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's stay in the pool; `done` is called once, from a worker thread or the caller's.

    Times are seconds on `time.perf_counter`. `values` has shape (n,) or (n, dim) once all parts
    have run; `error` is set instead where they have not.
    """

    number: int
    batch: TokenBatch
    deadline_s: float | None
    done: Callable[[Ticket], None]
    submitted_s: float
    left: int
    started_s: float = 0.0
    finished_s: float = 0.0
    values: Float32Array | None = None
    error: CrossbenchError | None = None
    closed: bool = False

    @property
    def queue_ms(self) -> float:
        return (self.started_s - self.submitted_s) * 1e3

    @property
    def infer_ms(self) -> float:
        return (self.finished_s - self.started_s) * 1e3


Work: TypeAlias = tuple[Ticket, np.ndarray]  # of which request, which sequences


@dataclass
class Pool:
    """Runs a scheduler's micro-batches on its workers, one thread per entry of `workers`.

    An entry may stand there several times when it makes use of several callers.
    `max_queue_pairs` bounds what may wait; an idle pool takes any request. With `routing` load the
    worker that fell idle last takes the next micro-batch, which lets the others rest;
    with round_robin each worker takes it in its turn, and the others wait for a busy one.
    """

    scheduler: Scheduler
    workers: Sequence[Worker]
    observer: BatchObserver
    max_queue_pairs: int
    routing: Routing
    _tickets: dict[int, Ticket] = field(default_factory=dict, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _submitted: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        # A condition each, so that the one that is to work wakes and no other
        self._ready = [threading.Condition(self._lock) for _ in self.workers]
        self._idle: list[int] = []
        self._away: set[int] = set()  # idle, and looking after themselves: they hear no call
        self._turns = deque(range(len(self.workers)))

    def start(self) -> None:
        for number, worker in enumerate(self.workers):
            thread = threading.Thread(
                target=self._serve, args=(number, worker), name=f"worker-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a worker."""
        with self._lock:
            return self.scheduler.waiting

    def submit(
        self, batch: TokenBatch, deadline_s: float | None, done: Callable[[Ticket], None]
    ) -> Ticket:
        """Queue a request's sequences.

        Raises:
            QueueFull: more than `max_queue_pairs` would wait.
            WorkerDied: the pool is closed.
        """
        now_s = time.perf_counter()
        with self._lock:
            if self._closed:
                raise WorkerDied(_ENDING)
            waiting = self.scheduler.waiting
            if waiting and waiting + len(batch) > self.max_queue_pairs:
                raise QueueFull(
                    f"{waiting} pairs wait and {len(batch)} more would pass the limit of "
                    f"{self.max_queue_pairs}: send less at once, or raise server.max_queue_pairs"
                )
            self._submitted += 1
            ticket = Ticket(self._submitted, batch, deadline_s, done, now_s, len(batch))
            self._tickets[ticket.number] = ticket
            self.scheduler.add(ticket.number, batch.lengths, now_s)
            self._wake()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Drop what still waits of a request; its `done` is not called any more."""
        with self._lock:
            ticket.closed = True
            self._forget(ticket)

    def close(self) -> None:
        """Stop the workers after what they run now; requests that still wait fail."""
        with self._lock:
            self._closed = True
            tickets = list(self._tickets.values())
            for ready in self._ready:
                ready.notify()
        for ticket in tickets:
            self._fail(ticket, WorkerDied(_ENDING))
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
                pause_s = self._rest(worker)
                if not worker.alive():
                    break
            else:
                self._run(worker, micro_batch)

    def _next(self, number: int, pause_s: float | None) -> list[Work]:
        """What the worker is to run; empty when it is to look after itself, or to end."""
        with self._lock:
            self._away.discard(number)
            while True:
                micro_batch = self._take(number)
                if micro_batch:
                    if work := self._alive(micro_batch):
                        return work
                    continue
                if self._closed:
                    return []
                if number not in self._idle:
                    self._idle.append(number)
                if not self._ready[number].wait(pause_s):
                    self._away.add(number)
                    return []

    def _may_take(self, number: int) -> bool:
        return self.routing == "load" or self._turns[0] == number

    def _take(self, number: int) -> MicroBatch:
        if not self._may_take(number):
            return ()
        micro_batch = self.scheduler.take(time.perf_counter())
        if micro_batch:
            self._turns.rotate(-1)
            if number in self._idle:  # it looked by itself, nobody woke it
                self._idle.remove(number)
            if self.scheduler.waiting:
                self._wake()
        return micro_batch

    def _wake(self) -> None:
        """Tell the worker that is to take what waits; a busy one looks when it is done."""
        if self.routing == "round_robin":
            if self._turns:
                self._ready[self._turns[0]].notify()
        elif awake := [number for number in self._idle if number not in self._away]:
            self._idle.remove(awake[-1])
            self._ready[awake[-1]].notify()

    def _rest(self, worker: Worker) -> float | None:
        """Without the lock: it may free a model. An engine that cannot must not end the thread."""
        try:
            return worker.rest()
        except Exception:
            log.exception("a worker could not rest")
            return worker.idle_check_s

    def _replace(self, number: int, worker: Worker) -> None:
        """Bring a dead worker back; meanwhile nothing is routed to it."""
        with self._lock:
            self._turns.remove(number)
            if number in self._idle:
                self._idle.remove(number)
            if self.scheduler.waiting:
                self._wake()
        try:
            worker.replace()
        except Exception:
            log.exception("a worker could not be replaced; the next micro-batch tries again")
        with self._lock:
            self._turns.append(number)

    def _alive(self, micro_batch: MicroBatch) -> list[Work]:
        """The parts whose request is still wanted; those past their deadline fail here, unrun."""
        now_s = time.perf_counter()
        alive: list[Work] = []
        for part in micro_batch:
            ticket = self._tickets.get(part.request)
            if ticket is None or ticket.closed:
                continue
            if ticket.deadline_s is not None and now_s > ticket.deadline_s:
                waited_ms = (now_s - ticket.submitted_s) * 1e3
                self._close(
                    ticket,
                    DeadlineExpired(f"deadline passed after {waited_ms:.0f} ms in the queue"),
                )
                continue
            if not ticket.started_s:
                ticket.started_s = now_s
            alive.append((ticket, part.indices))
        return alive

    def _run(self, worker: Worker, work: list[Work]) -> None:
        """Whatever fails here fails these requests alone: the thread has others to serve."""
        try:
            self._compute(worker, work)
        except Exception as error:
            log.exception("a worker failed on a micro-batch of %d requests", len(work))
            reason = error
            if not isinstance(reason, WorkerDied):
                reason = WorkerDied(f"the worker failed: {type(error).__name__}: {error}")
            for ticket, _ in work:
                self._fail(ticket, reason)

    def _compute(self, worker: Worker, work: list[Work]) -> None:
        batch = TokenBatch.concatenate([ticket.batch.select(rows) for ticket, rows in work])
        inference = worker.infer(batch)
        if len(inference.values) != len(batch):
            raise WorkerDied(
                f"the backend answered {len(batch)} sequences with {len(inference.values)} values: "
                "it must give one for each"
            )
        finished_s = time.perf_counter()
        self.observer.batch_done(len(batch), batch.total_tokens, inference.tokens_computed)
        start = 0
        for ticket, rows in work:
            self._deliver(ticket, rows, inference.values[start : start + len(rows)], finished_s)
            start += len(rows)

    def _deliver(
        self, ticket: Ticket, rows: np.ndarray, values: Float32Array, finished_s: float
    ) -> None:
        with self._lock:  # parts of one request may finish on several workers at once
            if ticket.closed:
                return
            if ticket.values is None:
                ticket.values = np.empty((len(ticket.batch), *values.shape[1:]), dtype=np.float32)
            ticket.values[rows] = values
            ticket.left -= len(rows)
            ticket.finished_s = finished_s
            if ticket.left:
                return
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
        self.scheduler.discard(ticket.number)
