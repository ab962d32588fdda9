"""The path of a request between event loop and workers: where it is tokenised, who is woken."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer, Tokenized
from crossbench.models.word_memo import NeedsLibrary
from crossbench.serving.bell import Bell
from crossbench.serving.event_loop import run
from crossbench.serving.length_aware import LengthAwareScheduler
from crossbench.serving.pool import Pool
from crossbench.serving.replies import Replies
from crossbench.serving.scheduler import DirectScheduler, DynamicScheduler, Scheduler
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.ticket import Ticket
from crossbench.serving.tokenizing import (
    INLINE_CHARACTERS,
    INLINE_LIBRARY_CHARACTERS,
    Tokenizing,
)
from crossbench.types import TokenBatch
from tests.helpers.serving import ZeroWorker

EMPTY = Tokenized(TokenBatch.from_lengths(np.zeros(0, np.int32), np.zeros(0, np.int32), []), 0)


def batch_of(sequences: int) -> TokenBatch:
    ids = np.zeros(sequences, dtype=np.int32)
    return TokenBatch.from_lengths(ids, ids, [1] * sequences)


def ticket_of(done: Callable[[Ticket], None]) -> Ticket:
    return Ticket(1, batch_of(1), None, done, 0.0, 1)


@dataclass
class Encoder:
    """Records the thread that tokenises, and needs the library unless all words are known."""

    known: bool
    threads: list[str] = field(default_factory=list)

    def __call__(self, use_library: bool) -> Tokenized:
        if not (self.known or use_library):
            raise NeedsLibrary
        self.threads.append(threading.current_thread().name)
        return EMPTY


@pytest.mark.parametrize(
    ("characters", "known", "on_the_loop"),
    [
        (INLINE_LIBRARY_CHARACTERS, False, True),
        (INLINE_LIBRARY_CHARACTERS + 1, False, False),
        (INLINE_LIBRARY_CHARACTERS + 1, True, True),
        (INLINE_CHARACTERS, True, True),
        (INLINE_CHARACTERS + 1, True, False),
    ],
)
def test_only_quick_requests_are_tokenised_on_the_event_loop(
    characters: int, known: bool, on_the_loop: bool
) -> None:
    encoder = Encoder(known)
    tokenizing = Tokenizing(1)
    assert asyncio.run(tokenizing.run(["x" * (characters - 1), "y"], encoder)) is EMPTY
    tokenizing.close()
    (thread,) = encoder.threads
    assert thread.startswith("tokenizer") != on_the_loop


def test_a_long_request_does_not_hold_up_a_short_one() -> None:
    gate = threading.Event()

    def blocked(use_library: bool) -> Tokenized:
        assert gate.wait(20)
        return EMPTY

    async def run() -> None:
        tokenizing = Tokenizing(1)
        long = asyncio.create_task(tokenizing.run(["x" * (INLINE_CHARACTERS + 1)], blocked))
        await asyncio.sleep(0)
        assert await tokenizing.run(["short"], Encoder(True)) is EMPTY
        assert not long.done()
        gate.set()
        assert await long is EMPTY
        tokenizing.close()

    asyncio.run(run())


def test_known_words_need_no_library(seeded_model: ModelFolder) -> None:
    tokenizer = PairTokenizer(seeded_model)
    medium, long = "y" * 128, "z" * 129
    for passage, is_remembered in (("unseen words", True), (medium, True), (long, False)):
        with pytest.raises(NeedsLibrary):
            tokenizer.encode_query("what", [passage], use_library=False)
        wanted = tokenizer.encode_query("what", [passage]).batch
        if is_remembered:
            found = tokenizer.encode_query("what", [passage], use_library=False).batch
            assert found.input_ids.tolist() == wanted.input_ids.tolist()
        else:
            with pytest.raises(NeedsLibrary):
                tokenizer.encode_query("what", [passage], use_library=False)


def test_token_arrays_are_writable_as_torch_requires(seeded_model: ModelFolder) -> None:
    batch = PairTokenizer(seeded_model).encode_query("what", ["a passage", "another one"]).batch
    for array in (batch.input_ids, batch.type_ids, batch.cu_seqlens):
        assert array.flags.writeable
        assert array.dtype == np.int32


def test_one_wake_up_for_all_requests_that_finish_together() -> None:
    async def run() -> None:
        loop, replies, wake_ups = asyncio.get_running_loop(), Replies(), 0
        wake = loop.call_soon_threadsafe

        def counted(*arguments: object) -> asyncio.Handle:
            nonlocal wake_ups
            wake_ups += 1
            return wake(*arguments)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = counted  # type: ignore[assignment,method-assign]
        for turn in range(1, 4):
            futures = [loop.create_future() for _ in range(5)]
            futures[1].cancel()
            tickets = [ticket_of(lambda ticket: None) for _ in futures]

            def finish(futures: list[asyncio.Future[Ticket]], tickets: list[Ticket]) -> None:
                for future, ticket in zip(futures, tickets, strict=True):
                    replies.add(future, ticket)

            worker = threading.Thread(target=finish, args=(futures, tickets))
            worker.start()
            worker.join()  # the loop does not run meanwhile
            for index, future in enumerate(futures):
                if index != 1:
                    assert await future is tickets[index]
            assert wake_ups == turn

    asyncio.run(run())


def test_no_reply_is_lost_when_several_workers_finish_at_any_time() -> None:
    async def run() -> None:
        loop, replies = asyncio.get_running_loop(), Replies()

        def finish(futures: list[asyncio.Future[Ticket]]) -> None:
            for future in futures:
                replies.add(future, ticket_of(lambda ticket: None))

        with ThreadPoolExecutor(4) as workers:
            for _ in range(200):
                groups = [[loop.create_future() for _ in range(3)] for _ in range(4)]
                for group in groups:
                    workers.submit(finish, group)
                async with asyncio.timeout(20):
                    await asyncio.gather(*(future for group in groups for future in group))

    asyncio.run(run())


def test_a_bell_that_rang_before_is_heard_once() -> None:
    bell = Bell()
    assert not bell.wait(0.0)
    bell.ring()
    bell.ring()
    assert bell.wait(None)
    assert not bell.wait(0.001)
    waiting = threading.Thread(target=bell.wait, args=(None,))
    waiting.start()
    bell.ring()
    waiting.join(20)
    assert not waiting.is_alive()


class RestlessWorker(ZeroWorker):
    """A worker whose idle checks are due all the time, so that they meet every submission."""

    idle_check_s: float | None = 0.0

    def unload_if_idle(self) -> float | None:
        return 0.0


def test_a_process_that_only_serves_runs_on_uvloop() -> None:
    used: list[str] = []

    async def main() -> None:
        used.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    run(main())
    assert used == ["uvloop"]


@pytest.mark.parametrize("routing", ["load", "round_robin"])
def test_no_request_is_forgotten_between_two_idle_checks(routing: str) -> None:
    scheduler = DynamicScheduler("dynamic", 2, 5.0)
    pool = Pool(scheduler, [RestlessWorker() for _ in range(2)], Telemetry(list), routing, 120.0)  # type: ignore[arg-type]
    pool.start()
    try:
        for _ in range(300):
            done = threading.Event()
            pool.submit(batch_of(3), None, lambda ticket, done=done: done.set())  # type: ignore[misc]
            assert done.wait(20)
    finally:
        pool.close()


@pytest.mark.parametrize(
    "scheduler",
    [
        DirectScheduler("direct"),
        DynamicScheduler("dynamic", 4, 5.0),
        LengthAwareScheduler("length_aware", "padded", 4, 64, 0.3),
    ],
    ids=lambda scheduler: str(scheduler.name),
)
def test_a_scheduler_counts_what_waits(scheduler: Scheduler) -> None:
    draw, waiting = random.Random(0), dict[int, int]()
    for request in range(300):
        count = draw.randint(1, 9)
        scheduler.add(request, np.full(count, 9, dtype=np.int32), request * 1e-3)
        waiting[request] = count
        if draw.random() < 0.2:
            gone = draw.randrange(request + 1)
            scheduler.discard(gone)
            waiting.pop(gone, None)
        if draw.random() < 0.7:
            for part in scheduler.take(request * 1e-3):
                assert np.all(np.diff(part.indices) > 0)
                waiting[part.request] -= len(part.indices)
        assert scheduler.waiting == sum(waiting.values())
