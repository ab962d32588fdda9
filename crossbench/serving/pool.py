"""The worker pool: replicas of one model that run the micro-batches which the scheduler forms."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from crossbench.errors import ConfigError, CrossbenchError, DeadlineExpired, QueueFull, WorkerDied
from crossbench.serving.scheduler import MicroBatch, Scheduler, require_at_least
from crossbench.types import Float32Array, Inference, TokenBatch

log = logging.getLogger(__name__)


class Worker(Protocol):
    """What computes a micro-batch: a Backend, or a process that holds one."""

    def infer(self, batch: TokenBatch) -> Inference: ...


class BatchObserver(Protocol):
    """Hears of every micro-batch that ran (called from worker threads)."""

    def batch_done(self, pairs: int, tokens: int, tokens_computed: int) -> None: ...


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many replicas run, on how many CPU threads each, beside how many tokenizer threads.

    `auto` workers is one; `auto` threads shares the usable cores among the workers.
    """

    name: str
    workers: int | str
    threads: int | str
    tokenizers: int

    def __post_init__(self) -> None:
        for key in ("workers", "threads"):
            value = getattr(self, key)
            if value != "auto" and (isinstance(value, str) or value < 1):
                raise ConfigError(
                    f"pool.{key} must be a positive whole number or auto, got {value!r}"
                )
        require_at_least("pool.tokenizers", self.tokenizers, 1)

    def resolve(self, cores: int) -> tuple[int, int]:
        """Replicas and threads of each on a machine with so many usable cores."""
        workers = 1 if self.workers == "auto" else int(self.workers)
        threads = max(1, cores // workers) if self.threads == "auto" else int(self.threads)
        return workers, threads


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


@dataclass
class Pool:
    """Runs a scheduler's micro-batches on its workers, one thread per entry of `workers`.

    An entry may stand there several times when it makes use of several callers.
    `max_queue_pairs` bounds what may wait; an idle pool takes any request.
    """

    scheduler: Scheduler
    workers: Sequence[Worker]
    observer: BatchObserver
    max_queue_pairs: int
    _tickets: dict[int, Ticket] = field(default_factory=dict, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)
    _submitted: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._ready = threading.Condition()

    def start(self) -> None:
        for number, worker in enumerate(self.workers):
            thread = threading.Thread(
                target=self._serve, args=(worker,), name=f"worker-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a worker."""
        with self._ready:
            return self.scheduler.waiting

    def submit(
        self, batch: TokenBatch, deadline_s: float | None, done: Callable[[Ticket], None]
    ) -> Ticket:
        """Queue a request's sequences.

        Raises:
            QueueFull: more than `max_queue_pairs` would wait.
        """
        now_s = time.perf_counter()
        with self._ready:
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
            self._ready.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Drop what still waits of a request; its `done` is not called any more."""
        with self._ready:
            ticket.closed = True
            self._forget(ticket)

    def close(self) -> None:
        """Stop the workers after what they run now; requests that still wait fail."""
        with self._ready:
            self._closed = True
            tickets = list(self._tickets.values())
            self._ready.notify_all()
        for ticket in tickets:
            self._fail(ticket, WorkerDied("the server is shutting down: send the request again"))
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: Worker) -> None:
        while True:
            with self._ready:
                while not (micro_batch := self.scheduler.take(time.perf_counter())):
                    if self._closed:
                        return
                    self._ready.wait()
                if self.scheduler.waiting:
                    self._ready.notify()
                work = self._alive(micro_batch)
            if work:
                self._run(worker, work)

    def _alive(self, micro_batch: MicroBatch) -> list[tuple[Ticket, np.ndarray]]:
        """The parts whose request is still wanted; those past their deadline fail here, unrun."""
        now_s = time.perf_counter()
        alive: list[tuple[Ticket, np.ndarray]] = []
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

    def _run(self, worker: Worker, work: list[tuple[Ticket, np.ndarray]]) -> None:
        batch = TokenBatch.concatenate([ticket.batch.select(rows) for ticket, rows in work])
        try:
            inference = worker.infer(batch)
        except Exception as error:
            log.exception("a worker failed on a micro-batch of %d sequences", len(batch))
            reason = WorkerDied(f"the worker failed: {type(error).__name__}: {error}")
            for ticket, _ in work:
                self._fail(ticket, reason)
            return
        finished_s = time.perf_counter()
        self.observer.batch_done(len(batch), batch.total_tokens, inference.tokens_computed)
        start = 0
        for ticket, rows in work:
            self._deliver(ticket, rows, inference.values[start : start + len(rows)], finished_s)
            start += len(rows)

    def _deliver(
        self, ticket: Ticket, rows: np.ndarray, values: Float32Array, finished_s: float
    ) -> None:
        with self._ready:  # parts of one request may finish on several workers at once
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
        with self._ready:
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
