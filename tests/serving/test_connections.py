"""Limits on connections, requests, watchers and metadata; connections that stop halfway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.serving.connections import ANSWER_S, HELLO_S, ConnectionLimits
from tests.helpers.serving import SETTINGS, noop, serving, until
from tests.helpers.stalled import STALLS, closed_after, stalled

LIMITS = SETTINGS.connections
MARGIN_S = 8.0  # gRPC's timers are not exact, and this machine may be busy


@contextlib.asynccontextmanager
async def limited(model: ModelFolder, **changes: float) -> AsyncIterator[str]:
    limits = dataclasses.replace(LIMITS, **changes)  # type: ignore[arg-type]
    async with serving([noop(model)], connections=limits) as address:
        yield address


async def status_of(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call  # type: ignore[misc]
    return failed.value.code(), failed.value.details() or ""


def test_the_connection_above_the_limit_is_closed_at_once(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with limited(seeded_model, max_connections=3) as address:
            held = [stalled(address, STALLS["settings"]) for _ in range(3)]
            await asyncio.sleep(0.2)
            fourth = stalled(address, STALLS["settings"])
            assert await asyncio.to_thread(closed_after, fourth, 10.0, answers=True) is not None
            held.pop().close()
            async with InferenceClient(address) as client:
                await client.ready(30.0)
                assert len((await client.score("q", ["p"])).scores) == 1
            for connection in held:
                connection.close()

    asyncio.run(run())


def test_the_watcher_above_the_limit_is_refused_until_another_one_ends(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        async with (
            limited(seeded_model, max_watchers=2) as address,
            InferenceClient(address) as client,
        ):
            streams = [client.watch_metrics(3600.0) for _ in range(2)]
            for stream in streams:
                await anext(stream)
            code, told = await status_of(anext(client.watch_metrics(1.0)))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "2 clients watch this server already" in told
            assert "server.connections.max_watchers" in told
            await streams[0].aclose()

            async def admitted() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await anext(client.watch_metrics(1.0))
                    return True
                return False

            while not await admitted():
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_requests_above_the_limit_are_refused_also_if_only_headers_were_sent(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        async with (
            limited(seeded_model, max_requests=3) as address,
            InferenceClient(address) as client,
        ):

            async def status() -> grpc.StatusCode:
                try:
                    await client.score("q", ["p"])
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return grpc.StatusCode.OK

            held = []
            # One that comes while another request runs may be refused, and then holds nothing
            while await status() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                held.append(stalled(address, STALLS["headers, no message"]))
                await asyncio.sleep(0.05)
            for connection in held:
                connection.close()
            while await status() is not grpc.StatusCode.OK:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_metadata_above_the_limit_is_refused(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with (
            limited(seeded_model) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            call = channel.unary_unary("/crossbench.v1.Inference/GetInfo")
            assert await call(b"", metadata=(("note", "x" * 4_000),))
            for size in (20_000, 1_000_000):
                code, told = await status_of(call(b"", metadata=(("note", "x" * size),)))
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "metadata size exceeds" in told
            assert await call(b"")  # on the same connection

    asyncio.run(run())


def test_an_idle_connection_is_closed_and_its_client_comes_back(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with (
            limited(seeded_model, idle_s=0.5) as address,
            InferenceClient(address) as client,
        ):
            await client.score("q", ["p"])
            silent = stalled(address, STALLS["settings"])
            assert await asyncio.to_thread(closed_after, silent, 20.0, answers=True) is not None
            assert len((await client.score("q", ["p"])).scores) == 1
            watching = client.watch_metrics(3600.0)
            await anext(watching)  # a stream is not idle, however quiet it is
            waiting = asyncio.ensure_future(anext(watching))
            await asyncio.sleep(1.2)
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(run())


def test_no_request_is_lost_when_connections_reach_their_age(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with (
            limited(seeded_model, age_s=0.3) as address,
            InferenceClient(address) as client,
        ):
            end = asyncio.get_running_loop().time() + 1.0
            answered = 0

            async def user() -> None:
                nonlocal answered
                while asyncio.get_running_loop().time() < end:
                    await client.score("q", ["p"])
                    answered += 1

            await asyncio.gather(*(user() for _ in range(8)))
            await until(lambda: answered > 8)

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True])
def test_connections_that_stop_halfway_are_closed_and_the_others_see_nothing(
    seeded_model: ModelFolder, answers: bool
) -> None:
    """A client that keeps HTTP/2's rules and does not finish its request is left to `age_s`."""
    limits = ConnectionLimits(256, 20_000, 4, 5.0, None)
    keep_rules = ("headers, no message", "half of a message", "half of a frame of data")

    async def run() -> dict[str, float | None]:
        longest_s = HELLO_S + ANSWER_S + MARGIN_S
        with ThreadPoolExecutor(len(STALLS)) as threads:
            async with (
                serving([noop(seeded_model)], connections=limits) as address,
                InferenceClient(address) as client,
            ):
                loop = asyncio.get_running_loop()
                waits = {
                    name: loop.run_in_executor(
                        threads,
                        lambda sent: closed_after(
                            stalled(address, sent), longest_s, answers=answers
                        ),
                        sent,
                    )
                    for name, sent in STALLS.items()
                }
                while not all(wait.done() for wait in waits.values()):
                    await client.score("q", ["p"])
                    await asyncio.sleep(0.05)
                return {name: await wait for name, wait in waits.items()}

    closed = asyncio.run(run())
    print(closed)
    left = {name for name, seconds in closed.items() if seconds is None}
    assert left <= (set(keep_rules) if answers else set())
