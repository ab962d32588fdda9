"""A real gRPC server on loopback: replies, limits, deadlines, errors, health, reflection."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass
from typing import Literal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from crossbench.backends.noop import NoopBackend
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving import inference_pb2 as pb
from crossbench.serving import inference_pb2_grpc as pb_grpc
from crossbench.serving.client import InferenceClient
from crossbench.serving.scheduler import DirectScheduler
from crossbench.types import Inference, Pair, TokenBatch
from tests.helpers.serving import gated, noop, noop_of, serving, until

PASSAGES = ["a short one", "a passage that is quite a bit longer than the first", "middle sized"]


@dataclass
class BrokenBackend(NoopBackend):
    """Fails on sequences of more than `limit` tokens, as an engine might."""

    limit: int = 12

    def infer(self, batch: TokenBatch) -> Inference:
        if batch.lengths.max() > self.limit:
            raise RuntimeError("the engine fell over")
        return super().infer(batch)


@dataclass
class ShortBackend(NoopBackend):
    """Returns too few scores for long batches, as a faulty engine might."""

    def infer(self, batch: TokenBatch) -> Inference:
        inference = super().infer(batch)
        if batch.lengths.max() > 12:
            return Inference(inference.values[:-1], inference.tokens_computed)
        return inference


async def status_of(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), caught.value.details() or ""


def test_scores_are_in_the_order_of_the_passages(seeded_model: ModelFolder) -> None:
    tokenizer = PairTokenizer(seeded_model)
    expected = tokenizer.encode_query("which one", PASSAGES).batch.lengths

    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            reply = await client.score("which one", PASSAGES)
            assert reply.scores.tolist() == expected.tolist()
            assert reply.tokens == expected.sum()
            assert reply.timing.tokenize_ms > 0
            pairs = [Pair("which one", text) for text in PASSAGES] + [Pair("other", "text")]
            spanning = await client.score_pairs(pairs)
            assert spanning.scores[:3].tolist() == expected.tolist()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (pb.ScoreRequest(query="q"), "contains no passages"),
        (pb.ScoreRequest(query="", passages=["p"]), "query is empty"),
        (pb.ScoreRequest(query="q", passages=["p", " \n"]), "text 1 of passages is empty"),
        (pb.ScoreRequest(query="q", passages=["p"] * 65), "the limit is 64"),
        (pb.ScoreRequest(query="q", passages=["x" * 250_000]), "the limit is 200000"),
        (
            pb.ScoreRequest(query="q", passages=["p"], model="other"),
            "this server has no model 'other'",
        ),
        (pb.ScorePairsRequest(), "contains no pairs"),
        (pb.ScorePairsRequest(pairs=[pb.Pair(query="q")]), "passages of pairs is empty"),
    ],
)
def test_invalid_requests_are_rejected_with_a_message(
    seeded_model: ModelFolder, message: pb.ScoreRequest | pb.ScorePairsRequest, expected: str
) -> None:
    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            code, details = await status_of(client.send(message))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert expected in details
            assert len((await client.score("still", ["alive"])).scores) == 1
            assert (await client.metrics()).requests_failed == {"INVALID_ARGUMENT": 1}

    asyncio.run(run())


def test_embed_is_rejected_by_a_cross_encoder(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with (
            serving([noop(seeded_model)]) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            embed = channel.unary_unary(
                "/crossbench.v1.Inference/Embed",
                request_serializer=pb.EmbedRequest.SerializeToString,
                response_deserializer=pb.EmbedResponse.FromString,
            )
            code, details = await status_of(embed(pb.EmbedRequest(texts=["a"])))
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert "cross-encoder" in details

    asyncio.run(run())


def test_a_full_queue_rejects_requests_and_loses_none(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        backend = gated(seeded_model)
        async with (
            serving([backend], DirectScheduler("direct"), max_queue_pairs=4) as address,
            InferenceClient(address) as client,
        ):
            running = asyncio.create_task(client.score("q", ["a"] * 3))
            await until(lambda: backend.ran == [3])
            waiting = asyncio.create_task(client.score("q", ["a"] * 3))
            while (await client.metrics()).queue_pairs != 3:
                await asyncio.sleep(0.01)
            code, details = await status_of(client.score("q", ["a"] * 2))
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "limit of 4" in details
            backend.gate.set()
            assert len((await running).scores) == len((await waiting).scores) == 3

    asyncio.run(run())


def test_an_expired_or_cancelled_request_is_never_computed(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        backend = gated(seeded_model)
        async with (
            serving([backend], DirectScheduler("direct")) as address,
            InferenceClient(address) as client,
        ):
            first = asyncio.create_task(client.score("q", ["a"]))
            await until(lambda: backend.ran == [1])
            cancelled = asyncio.create_task(client.score("q", ["a"] * 3))
            while (await client.metrics()).queue_pairs != 3:
                await asyncio.sleep(0.01)
            cancelled.cancel()
            message = pb.ScoreRequest(query="q", passages=["a"] * 2)
            code, _ = await status_of(client.send(message, timeout_s=0.2))
            assert code == grpc.StatusCode.DEADLINE_EXCEEDED
            while sum((await client.metrics()).requests_failed.values()) != 2:
                await asyncio.sleep(0.01)
            assert (await client.metrics()).queue_pairs == 0
            backend.gate.set()
            await first
            await client.score("q", ["a"] * 4)
            assert backend.ran == [1, 4]
            failed = (await client.metrics()).requests_failed
            assert failed == {"DEADLINE_EXCEEDED": 1, "CANCELLED": 1}

    asyncio.run(run())


def test_a_worker_that_raises_fails_its_own_requests_only(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        backend = noop_of(BrokenBackend, seeded_model)
        async with (
            serving([backend], DirectScheduler("direct")) as address,
            InferenceClient(address) as client,
        ):
            code, details = await status_of(client.score("q", ["long " * 40]))
            assert code == grpc.StatusCode.INTERNAL
            assert "RuntimeError: the engine fell over" in details
            assert len((await client.score("q", ["ok"])).scores) == 1

    asyncio.run(run())


def test_a_missing_score_fails_only_its_own_request(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        backend = noop_of(ShortBackend, seeded_model)
        async with serving([backend]) as address, InferenceClient(address) as client:
            message = pb.ScoreRequest(query="q", passages=["ok", "long " * 40])
            code, details = await status_of(client.send(message, timeout_s=10))
            assert code == grpc.StatusCode.INTERNAL
            assert "must return shape (2,), one row per sequence" in details
            reply = await client.send(pb.ScoreRequest(query="q", passages=["ok"]), timeout_s=10)
            assert len(reply.scores) == 1

    asyncio.run(run())


@pytest.mark.parametrize("interval_s", [math.nan, math.inf, 1e300, 0.01, -1.0])
def test_an_invalid_watch_interval_is_rejected(
    seeded_model: ModelFolder, interval_s: float
) -> None:
    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            code, details = await status_of(anext(client.watch_metrics(interval_s)))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert "interval_s must be 0.05 to 3600" in details
            await asyncio.sleep(0.01)  # the server's timers still work, since they share this loop

    # With broken timers the loop would never end, so run it in a daemon thread
    ended = threading.Event()
    threading.Thread(target=lambda: (asyncio.run(run()), ended.set()), daemon=True).start()
    assert ended.wait(20)


def test_a_reply_may_exceed_the_default_limit_of_grpc() -> None:
    class Large(pb_grpc.InferenceServicer):
        async def Embed(self, request: object, context: object) -> pb.EmbedResponse:  # noqa: N802
            return pb.EmbedResponse(values=[0.5] * (1024 * 1100), dim=1024)

    async def run() -> None:
        server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        pb_grpc.add_InferenceServicer_to_server(Large(), server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with InferenceClient(f"127.0.0.1:{port}") as client:
            assert (await client.embed(["a"] * 1100)).vectors.shape == (1100, 1024)
        await server.stop(None)

    asyncio.run(run())


def test_health_reflection_and_a_port_in_use(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with serving([noop(seeded_model)]) as address:
            async with grpc.aio.insecure_channel(address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest(service="crossbench.v1.Inference")
                answer = await health.Check(request)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
                listing = reflection_pb2.ServerReflectionRequest(list_services="")
                async for reply in reflection.ServerReflectionInfo(iter([listing])):
                    names = {entry.name for entry in reply.list_services_response.service}
            assert "crossbench.v1.Inference" in names
            with pytest.raises(
                Exception, match=r"server\.port=\d+ is already in use on 127\.0\.0\.1"
            ):
                async with serving([noop(seeded_model)], port=int(address.rsplit(":", 1)[1])):
                    pass

    asyncio.run(run())


def test_metrics_count_batches_and_can_be_reset(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            for _ in range(3):
                await client.score("a query", PASSAGES)
            metrics = await client.metrics()
            assert (metrics.requests_ok, metrics.pairs, metrics.batch_pairs) == (3, 9, 9)
            assert metrics.tokens == metrics.batch_tokens == metrics.tokens_computed
            assert metrics.latency_ms.count == 3
            assert metrics.rss_mb > 1
            await client.reset_metrics()
            assert (await client.metrics()).pairs == 0
            async for snapshot in client.watch_metrics(0.05):
                assert snapshot.uptime_s > 0
                break

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["sleep", "busy"])
def test_noop_is_a_server_of_known_speed(
    kind: Literal["sleep", "busy"], seeded_model: ModelFolder
) -> None:
    """It is never faster than its setting, and on any machine at least half as fast."""
    pairs, us_per_pair = 50, 4000.0

    async def run() -> float:
        backend = noop(seeded_model, us_per_pair, kind)
        async with serving([backend]) as address, InferenceClient(address) as client:
            message = pb.ScoreRequest(query="q", passages=["p"] * pairs)
            await client.send(message)
            started_s = time.perf_counter()
            replies = [await client.send(message) for _ in range(3)]
            assert all(reply.timing.infer_ms >= pairs * us_per_pair / 1e3 for reply in replies)
            return 3 * pairs / (time.perf_counter() - started_s)

    assert 0.5 * 1e6 / us_per_pair <= asyncio.run(run()) <= 1e6 / us_per_pair
