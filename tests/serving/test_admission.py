"""Admission: what a busy server refuses, when, and with which advice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from crossbench.errors import QueueFull
from crossbench.models.folder import ModelFolder
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.admission import Admission
from crossbench.serving.client import InferenceClient
from crossbench.serving.pool import Pool
from crossbench.serving.scheduler import DynamicScheduler
from crossbench.serving.speed import LATEST, Speed
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.ticket import Ticket
from crossbench.serving.tokenizing import Tokenizing
from crossbench.types import TokenBatch
from tests.helpers.serving import SETTINGS, ZeroWorker, gated, noop, serving, until

TOKENS = 100
S_PER_TOKEN = 0.001


def batch_of(sequences: int) -> TokenBatch:
    ids = np.zeros(sequences * TOKENS, dtype=np.int32)
    return TokenBatch.from_lengths(ids, ids, [TOKENS] * sequences)


def ignore(ticket: Ticket) -> None:
    """Take a finished request."""


def admission(sequences: int, **changes: object) -> Admission:
    """Return an admission whose pool has sequences that no worker takes, of 0.1 s each."""
    pool = Pool(
        DynamicScheduler("dynamic", 256, 5.0), [ZeroWorker()], Telemetry(list), "load", 120.0
    )
    pool._pool_speed.add(1000, 1000 * S_PER_TOKEN)
    pool._worker_speed.add(1000, 1000 * S_PER_TOKEN)
    if sequences:
        pool.submit(batch_of(sequences), None, ignore)
    settings = replace(SETTINGS, max_pairs=1000, max_queue_pairs=1000, **changes)  # type: ignore[arg-type]
    return Admission(pool, Tokenizing(1), settings, max_length=TOKENS)


def refused(check: Callable[[], None]) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        check()
    return caught.value


def test_a_request_that_would_wait_too_long_is_refused() -> None:
    admission(9, max_queue_ms=1000).check(5, 400, None, 0.0)
    error = refused(lambda: admission(15, max_queue_ms=1000).check(5, 400, None, 0.0))
    assert "would wait for about 1,500 ms, the limit is 1,000 ms" in str(error)
    assert error.retry_after_s == pytest.approx(0.5)


def test_a_request_that_would_miss_its_deadline_is_refused() -> None:
    # 4 x 100 tokens follow 5 x 100: answered after 0.9 s
    admission(5).check(4, 10_000, 1.0, 0.0)
    error = refused(lambda: admission(5).check(4, 10_000, 0.8, 0.0))
    assert "would be answered in about 900 ms, but its deadline is in 800 ms" in str(error)
    assert error.retry_after_s == pytest.approx(0.5)


def test_an_idle_server_takes_every_request() -> None:
    admission(0, max_queue_ms=1).check(1000, 4_000_000, 0.001, 0.0)


def test_work_in_the_tokenizers_threads_counts() -> None:
    control = admission(0, max_queue_ms=1000)
    control.tokenizing.waiting_characters = 8000  # 2000 tokens
    control.tokenizing.waiting_texts = 999
    assert "would wait" in str(refused(lambda: control.check(1, 400, None, 0.0)))
    assert "limit of 1000" in str(refused(lambda: control.check(2, 400, None, 0.0)))


def test_cancelled_work_does_not_count() -> None:
    pool = Pool(
        DynamicScheduler("dynamic", 256, 5.0), [ZeroWorker()], Telemetry(list), "load", 120.0
    )
    pool._pool_speed.add(1000, 1.0)
    tickets = [pool.submit(batch_of(2), None, ignore) for _ in range(3)]
    assert pool.backlog(0.0).wait_s == pytest.approx(0.6)
    pool.cancel(tickets[1])
    assert pool.backlog(0.0).wait_s == pytest.approx(0.4)
    assert pool.backlog(0.0).pairs == 4


def test_tokens_are_predicted_from_what_requests_had() -> None:
    control = admission(5)
    control.check(900, 1000, 0.9, 0.0)  # 1000 bytes are 250 tokens
    for _ in range(100):
        control.learn(100, 100)
    refused(lambda: control.check(900, 1000, 0.9, 0.0))


def test_the_speed_is_that_of_the_latest_work() -> None:
    speed = Speed()
    assert speed.seconds(10) == 0.0
    speed.add(1, 100.0)
    for _ in range(LATEST):
        speed.add(10, 1.0)
    assert speed.seconds(20) == pytest.approx(2.0)


def test_a_storm_is_refused_with_advice_and_nothing_is_lost(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        backend = noop(seeded_model, us_per_pair=50_000.0)
        message = pb.ScoreRequest(query="which one", passages=["a passage of words"])
        async with (
            serving([backend], DynamicScheduler("dynamic", 1, 0.0), max_queue_ms=300) as address,
            InferenceClient(address) as client,
        ):
            wanted = (await client.send_score(message)).scores.tolist()
            answers = await asyncio.gather(
                *(client.send_score(message) for _ in range(40)), return_exceptions=True
            )
            refusals = [item for item in answers if isinstance(item, grpc.aio.AioRpcError)]
            replies = [item for item in answers if not isinstance(item, BaseException)]
            assert 0 < len(refusals) < 40
            assert all(reply.scores.tolist() == wanted for reply in replies)
            for error in refusals:
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "server.max_queue_ms" in (error.details() or "")
                status = rpc_status.from_call(error)
                info = error_details_pb2.RetryInfo()
                assert status.details[0].Unpack(info)
                assert 0 < info.retry_delay.ToNanoseconds() < 60e9
                metadata = dict(error.trailing_metadata() or ())
                assert int(metadata["grpc-retry-pushback-ms"]) >= 10
            metrics = await client.metrics()
            assert metrics.requests_failed == {"RESOURCE_EXHAUSTED": len(refusals)}
            assert metrics.requests_ok == metrics.batch_pairs == 1 + len(replies)
            assert metrics.wasted_pairs == 0

    asyncio.run(run())


def test_hopeless_requests_are_refused_before_anything_is_done_for_them(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        backend = noop(seeded_model, us_per_pair=100_000.0)
        message = pb.ScoreRequest(query="which one", passages=["a passage of words"] * 2)
        async with serving([backend]) as address, InferenceClient(address) as client:
            await client.send_score(message)
            running = asyncio.create_task(
                client.send_score(pb.ScoreRequest(query="which one", passages=["a passage"] * 30))
            )
            while not (await client.metrics()).requests_in_flight:
                await asyncio.sleep(0.01)
            tokens = (await client.metrics()).batch_tokens
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.send_score(message, timeout_s=0.5)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "its deadline is in" in (caught.value.details() or "")
            assert (await client.metrics()).batch_tokens == tokens
            assert len((await running).scores) == 30

    asyncio.run(run())


def test_pairs_that_are_computed_for_nobody_are_counted(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        backend = gated(seeded_model)
        async with serving([backend]) as address, InferenceClient(address) as client:
            left = asyncio.create_task(client.score("q", ["a"] * 3))
            await until(lambda: backend.ran == [3])
            left.cancel()
            while not (await client.metrics()).requests_failed:
                await asyncio.sleep(0.01)
            backend.gate.set()
            await client.score("q", ["a"])
            metrics = await client.metrics()
            assert (metrics.batch_pairs, metrics.wasted_pairs) == (4, 3)

    asyncio.run(run())


@pytest.mark.parametrize("field", ["query", "passages"])
def test_a_text_that_is_too_long_is_refused(seeded_model: ModelFolder, field: str) -> None:
    async def run() -> None:
        async with (
            serving([noop(seeded_model)], max_text_bytes=3000) as address,
            InferenceClient(address) as client,
        ):
            for text, is_refused in (("é" * 1500, False), ("é" * 1501, True), ("x" * 3001, True)):
                texts = {"query": "q", "passages": "p", field: text}
                call = client.score(texts["query"], [texts["passages"]])
                if not is_refused:
                    assert len((await call).scores) == 1
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert "the limit is 3000: shorten it" in (caught.value.details() or "")

    asyncio.run(run())
