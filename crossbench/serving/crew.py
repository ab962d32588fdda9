"""The threads of a pool: they run micro-batches, and what fails, dies or hangs is replaced."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from crossbench.errors import CrossbenchError, OutOfMemory, ProcessDied, WorkerDied, WorkerHung
from crossbench.serving.availability import Availability
from crossbench.serving.gate import Gate
from crossbench.serving.watch import Watch
from crossbench.serving.worker import Member, Queue, Work, Worker
from crossbench.types import TokenBatch
from crossbench.wording import error_text
from crossbench.wording import number as shown

log = logging.getLogger(__name__)

TICKS_S = (0.02, 1.0)  # shortest and longest interval of the watch
TICKS = 20  # per infer_timeout_s
KILLED_S = 5.0  # how long the calls into a killed process may take to fail
STALLED_FACTOR = 2.0  # times infer_timeout_s, without any progress: then waiting requests fail
MOST_DEATHS = 3  # after so many in a row without a success, no request is tried a second time
MOST_STUCK = 3  # threads that hang; each keeps a copy of the model
REPLACE_PAUSES_S = (0.5, 30.0)  # first and longest pause between failed replacements
JOIN_S = 5.0  # how long close() waits for the threads


class Crew:
    """Runs micro-batches, with one thread per entry of `workers`.

    What a micro-batch raises fails its own requests. If it held several, each is computed again in
    a micro-batch of its own, so that one cannot fail its company; so is each request of a worker
    process that died. No request is computed more than twice. A micro-batch that takes longer than
    `infer_timeout_s` fails its requests; its process is killed, or its thread left behind, and
    another one takes its place.
    """

    def __init__(self, queue: Queue, workers: Sequence[Worker], infer_timeout_s: float) -> None:
        self._queue = queue
        self._infer_timeout_s = infer_timeout_s
        self._lock = threading.RLock()
        callers = [sum(other is worker for other in workers) for worker in workers]
        gates = {id(worker): Gate() for worker in workers}
        self._members = [
            Member(number, worker, gates[id(worker)] if callers[number] > 1 else None)
            for number, worker in enumerate(workers)
        ]
        self.availability = Availability(queue, len(workers))
        self._renewed_s: dict[int, float] = {}
        self._stuck = 0
        self._vacant: list[Member] = []  # members without a thread, as too many others hang
        self._deaths = 0  # of processes since the last success
        self._progress_s = 0.0
        self._closing = threading.Event()
        self._threads: dict[int, threading.Thread] = {}  # without those that were left behind
        shortest_s, longest_s = TICKS_S
        tick_s = min(max(infer_timeout_s / TICKS, shortest_s), longest_s)
        self._watch = Watch(tick_s, self._check)

    def start(self) -> None:
        for member in self._members:
            self._start(member)
        self._watch.start()

    def close(self) -> None:
        """End the threads after their current micro-batches; do not wait for those that hang."""
        self._closing.set()
        end_s = time.monotonic() + JOIN_S
        for thread in list(self._threads.values()):
            thread.join(max(end_s - time.monotonic(), 0.0))
        self._watch.stop()

    def _start(self, member: Member) -> None:
        thread = threading.Thread(
            target=self._main, args=(member,), name=f"worker-{member.number}", daemon=True
        )
        self._threads[member.number] = thread
        thread.start()

    def _main(self, member: Member) -> None:
        if member.worker.alive():
            self.availability.set(member.number, True)
        while not (self._closing.is_set() or member.abandoned):
            try:
                self._serve(member)
            except BaseException:  # the thread must not end without a word
                log.exception("a worker's thread failed; it goes on")
                member.end()
                self._closing.wait(TICKS_S[1])
        if member.abandoned:
            self._came_back()

    def _serve(self, member: Member) -> None:
        worker = member.worker
        while not (self._closing.is_set() or member.abandoned):
            self._replace_dead(member)
            pause_s = worker.idle_check_s
            while not (work := self._queue.next(member.number, pause_s)):
                if self._closing.is_set():
                    return
                pause_s = self._check_idle(member)
                if member.abandoned or not worker.alive():
                    break
            else:
                self._run(member, work)

    def _run(self, member: Member, work: Sequence[Work]) -> None:
        """Run a micro-batch; if it fails, run the requests that may be innocent once more."""
        member.work = work
        try:
            error = self._try(member, work, self._beside_others(member))
            if error is None:
                return
            died = isinstance(error, ProcessDied)
            for item in work:
                if item[0].closed:
                    continue
                second: CrossbenchError | None = error
                if died and self._deaths <= MOST_DEATHS:
                    self._replace_dead(member)
                    second = self._try(member, [item], self._alone(member))
                elif not died and len(work) > 1:
                    second = self._try(member, [item], self._beside_others(member))
                if second is not None:
                    self._queue.fail([item], second)
        except BaseException as raised:  # not by the worker: a fault of ours, or no memory
            self._queue.fail(work, _worker_died(raised))
            raise
        finally:
            member.work = ()

    def _beside_others(self, member: Member) -> AbstractContextManager[None]:
        return member.gate.shared() if member.gate else nullcontext()

    def _alone(self, member: Member) -> AbstractContextManager[None]:
        """Keep other callers out of the process that the next request may kill."""
        return member.gate.alone(self._infer_timeout_s) if member.gate else nullcontext()

    def _try(
        self, member: Member, work: Sequence[Work], gate: AbstractContextManager[None]
    ) -> CrossbenchError | None:
        """Compute a micro-batch and deliver its values, or return why it failed."""
        error: CrossbenchError | None = None
        with gate:
            batch = TokenBatch.concatenate([ticket.part(rows) for ticket, rows in work])
            tokens, started_s = batch.total_tokens, time.perf_counter()
            self._queue.began(tokens)
            member.begin(self._watch.now_s, self._infer_timeout_s)
            try:
                inference = member.worker.infer(batch)
            except BaseException as raised:
                error = _worker_died(raised)
            learned = error is None and member.limit_s == self._infer_timeout_s  # it loaded nothing
            member.end()
            self._queue.ended(tokens, time.perf_counter() - started_s if learned else None)
        if isinstance(error, ProcessDied):
            self._deaths += 1
        else:
            self._progress_s = self._watch.now_s
        if error is not None:
            log.warning("a micro-batch of %d requests failed: %s", len(work), error)
            return error
        self._deaths = 0
        try:
            self._queue.deliver(work, inference, tokens)
        except Exception as raised:
            log.exception("the values of a micro-batch could not be delivered")
            return _worker_died(raised)
        return None

    def _check_idle(self, member: Member) -> float | None:
        """Call unload_if_idle() without the lock, since it takes time. Errors are only logged."""
        member.begin(self._watch.now_s, self._infer_timeout_s)
        try:
            return member.worker.unload_if_idle()
        except BaseException:
            log.exception("a worker could not unload its model")
            return member.worker.idle_check_s
        finally:
            member.end()

    def _replace_dead(self, member: Member) -> None:
        """Replace a worker unless it lives, again and again until it succeeds.

        It gets no work in the meantime, and the requests that it holds do not wait for a second
        attempt.
        """
        if member.worker.alive():
            return
        self.availability.set(member.number, False)
        pause_s, longest_pause_s = REPLACE_PAUSES_S
        while not (self._closing.is_set() or member.abandoned):
            member.begin(self._watch.now_s, self._infer_timeout_s)
            try:
                member.worker.replace()
                reason = "" if member.worker.alive() else "it died at once"
            except BaseException as error:
                reason = error_text(error)
            finally:
                member.end()
            if member.abandoned:
                return
            if not reason:
                self.availability.set(member.number, True)
                return
            log.error("a worker could not be replaced (%s); trying again", reason)
            self._queue.fail(member.work, WorkerDied(f"the worker was not replaced: {reason}"))
            self.availability.set(member.number, False, reason)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, longest_pause_s)

    def _check(self) -> None:
        """Find calls that hang. The watch calls this at each tick."""
        now_s, timeout_s = self._watch.now_s, self._infer_timeout_s
        for member in list(self._members):
            since_s = member.since_s
            if since_s is None:
                continue
            loading_s = member.worker.loading_limit_s
            if loading_s is not None and not member.killed:
                member.limit_s = timeout_s + loading_s
            if now_s - since_s > member.limit_s:
                self._end_hung(member, since_s)
        stalled_s = STALLED_FACTOR * timeout_s
        if now_s - self._progress_s > stalled_s:
            self._queue.fail_older(
                stalled_s, f"no worker has finished anything for {shown(stalled_s)} s"
            )

    def _end_hung(self, member: Member, since_s: float) -> None:
        """Fail the requests of a thread that hangs, and end or replace it."""
        loading = member.limit_s > self._infer_timeout_s
        what = "loading the model again" if loading else "a micro-batch"
        limit = f"{shown(member.limit_s)} s" + ("" if loading else " (pool.infer_timeout_s)")
        if member.killed:
            log.error("worker %d was killed, but its thread still hangs", member.number)
        else:
            log.error("worker %d hangs: %s took longer than %s", member.number, what, limit)
            self._queue.fail(
                member.work,
                WorkerHung(f"the worker hangs: {what} took longer than {limit}"),
            )
            if member.worker.kill():
                member.killed = True
                member.limit_s = self._watch.now_s - since_s + KILLED_S
                return
        if not member.abandon(since_s):
            return
        worker = member.worker
        reason = ""
        with self._lock:
            self._stuck += 1
            if since_s >= self._renewed_s.get(id(worker), 0.0):
                try:
                    worker.renew()
                    self._renewed_s[id(worker)] = self._watch.now_s
                except Exception as error:
                    reason = f"it hangs and cannot be copied: {error_text(error)}"
                    log.exception("worker %d cannot be replaced", member.number)
            successor = Member(member.number, worker, member.gate)
            self._members[member.number] = successor
            if self._stuck > MOST_STUCK:
                reason = f"{self._stuck} threads hang"
            self.availability.set(member.number, False, reason)
            if reason:
                self._vacant.append(successor)
                del self._threads[member.number]
            else:
                self._start(successor)

    def _came_back(self) -> None:
        """A thread that was left behind has ended after all: it makes room for another one."""
        with self._lock:
            self._stuck -= 1
            if self._vacant and self._stuck <= MOST_STUCK and not self._closing.is_set():
                self._start(self._vacant.pop())


def _worker_died(raised: BaseException) -> CrossbenchError:
    """Return the error of the requests whose micro-batch raised this."""
    if isinstance(raised, OutOfMemory | WorkerDied):
        return raised
    return WorkerDied(f"the worker failed: {error_text(raised)}")
