"""Workers that raise, return nonsense, die, hang or stop: who suffers, and what comes after."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import DynamicScheduler
from tests.helpers.faulty import Fault, FaultyBackend, passage_of
from tests.helpers.serving import in_process, noop_of, serving, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
INNOCENTS = range(10, 30)  # numbers of tokens, which are the scores
SHORT_S = 1.0


def faulty(model: ModelFolder, cache_dir: Path = Path(), **changes: object) -> FaultyBackend:
    backend = noop_of(FaultyBackend, model)
    deployment = dataclasses.replace(backend.deployment, cache_dir=cache_dir)
    return dataclasses.replace(backend, deployment=deployment, **changes)  # type: ignore[arg-type]


def replica_of(backend: FaultyBackend, processes: bool) -> Replica:
    return in_process(backend) if processes else Replica(backend, backend)


async def outcome(client: InferenceClient, tokens: int) -> float | tuple[str, str]:
    """Return the score of a pair of so many tokens, or the status and its words."""
    try:
        return float((await client.score("q", [passage_of(tokens)])).scores[0])
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""


async def company(client: InferenceClient, *faults: int) -> list[tuple[str, str]]:
    """Send faulty requests among innocent ones, all at once; check the innocent ones' scores."""
    sent = [*INNOCENTS[::2], *faults, *INNOCENTS[1::2]]
    found = await asyncio.gather(*(outcome(client, tokens) for tokens in sent))
    by_tokens = dict(zip(sent, found, strict=True))
    assert {tokens: by_tokens[tokens] for tokens in INNOCENTS} == {n: float(n) for n in INNOCENTS}
    failed = [by_tokens[fault] for fault in faults]
    assert all(isinstance(item, tuple) for item in failed), failed
    return failed  # type: ignore[return-value]


async def health(address: str) -> int:
    """Return the health of the server and of its service, once they agree."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        names = ("", "crossbench.v1.Inference")
        while True:
            requests = [health_pb2.HealthCheckRequest(service=name) for name in names]
            found = {(await stub.Check(request)).status for request in requests}
            if len(found) == 1:
                return int(found.pop())


async def until_health(address: str, wanted: int) -> None:
    for _ in range(6000):
        if await health(address) == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"health never became {wanted}")


def worker_threads() -> int:
    return sum(thread.name == "worker-0" for thread in threading.enumerate())


RAISING: Sequence[tuple[Fault, str]] = (
    (Fault.RAISES, "the worker failed: RuntimeError: the engine fell over"),
    (Fault.EXITS, "the worker failed: SystemExit: 3"),
    (Fault.INTERRUPTED, "the worker failed: KeyboardInterrupt"),
    (Fault.GENERATOR_EXIT, "the worker failed: GeneratorExit"),
    (Fault.RETURNS_NONE, "returned NoneType"),
    (Fault.TWO_DIMENSIONS, "must return shape (1,)"),
    (Fault.TOO_FEW, "must return shape (1,)"),
    (Fault.DOUBLES, "must return float32 values"),
)


@pytest.mark.parametrize("processes", [False, True])
def test_whatever_a_backend_raises_or_returns_fails_one_request(
    seeded_model: ModelFolder, processes: bool
) -> None:
    async def run() -> None:
        replica = replica_of(faulty(seeded_model), processes)
        async with (
            serving([replica], DynamicScheduler("dynamic", 64, 50.0)) as address,
            InferenceClient(address) as client,
        ):
            pid = replica.pid
            failed = await company(client, *(fault for fault, _ in RAISING))
            for (status, words), (fault, expected) in zip(failed, RAISING, strict=True):
                assert status == "INTERNAL", (fault, status)
                assert expected in words, (fault, words)
            assert replica.pid == pid
            assert await health(address) == SERVING
            assert dict((await client.metrics()).requests_failed) == {"INTERNAL": len(RAISING)}

    asyncio.run(run())


@pytest.mark.parametrize("processes", [False, True])
def test_a_batch_that_does_not_fit_in_memory_is_halved(
    seeded_model: ModelFolder, processes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        replica = replica_of(faulty(seeded_model, most=3), processes)
        scheduler = DynamicScheduler("dynamic", 64, 50.0)
        async with serving([replica], scheduler) as address, InferenceClient(address) as client:
            passages = [passage_of(tokens) for tokens in INNOCENTS]
            for _ in range(2):
                assert list((await client.score("q", passages)).scores) == list(INNOCENTS)
            ((status, words),) = await company(client, Fault.NEVER_FITS)
            assert status == "RESOURCE_EXHAUSTED"
            assert "a text of 52 tokens alone does not fit in the memory of none" in words

    asyncio.run(run())
    if not processes:
        told = [record for record in caplog.records if "did not fit in memory" in record.message]
        assert len(told) == 1


def test_a_request_that_kills_its_worker_twice_fails_alone(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        replica = in_process(faulty(seeded_model))
        scheduler = DynamicScheduler("dynamic", 64, 50.0)
        async with serving([replica], scheduler) as address, InferenceClient(address) as client:
            ((status, words),) = await company(client, Fault.DIES)
            assert status == "INTERNAL"
            assert "was ended by SIGKILL" in words
            assert (await client.metrics()).requests_ok == len(INNOCENTS)
            await until_health(address, SERVING)

    asyncio.run(run())


def test_a_worker_that_is_killed_from_outside_loses_no_request(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        replica = in_process(faulty(seeded_model, service_us_per_pair=100_000.0))
        async with serving([replica]) as address, InferenceClient(address) as client:
            scores = [asyncio.create_task(outcome(client, tokens)) for tokens in INNOCENTS[:6]]
            await until(lambda: replica.active)
            assert replica.pid is not None
            os.kill(replica.pid, signal.SIGKILL)
            assert await asyncio.gather(*scores) == [float(tokens) for tokens in INNOCENTS[:6]]

    asyncio.run(run())


@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.STOPS])
def test_a_worker_process_that_hangs_or_is_stopped_is_replaced(
    seeded_model: ModelFolder, fault: Fault
) -> None:
    async def run() -> None:
        replica = in_process(faulty(seeded_model))
        async with (
            serving([replica], infer_timeout_s=SHORT_S) as address,
            InferenceClient(address) as client,
        ):
            before = replica.pid
            doomed = asyncio.create_task(outcome(client, fault))
            await until(lambda: replica.active)
            waiting = asyncio.create_task(outcome(client, 12))
            status, words = await doomed  # type: ignore[misc]
            assert status == "INTERNAL"
            assert "a micro-batch took longer than 1.00 s (pool.infer_timeout_s)" in words
            assert await waiting == 12.0
            assert replica.pid not in (None, before)
            await until_health(address, SERVING)

    asyncio.run(run())


def test_a_thread_that_hangs_is_left_behind_and_replaced(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        replica = replica_of(faulty(seeded_model), False)
        async with (
            serving([replica], infer_timeout_s=0.3) as address,
            InferenceClient(address) as client,
        ):
            for _ in range(3):
                status, words = await outcome(client, Fault.HANGS)  # type: ignore[misc]
                assert (status, "the worker hangs" in words) == ("INTERNAL", True)
                assert await outcome(client, 12) == 12.0
            await until_health(address, SERVING)

    asyncio.run(run())


def test_threads_that_were_left_behind_make_room_when_they_end(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    async def run() -> None:
        others = worker_threads()
        replica = replica_of(faulty(seeded_model, tmp_path), False)
        async with (
            serving([replica], infer_timeout_s=0.3) as address,
            InferenceClient(address) as client,
        ):
            (tmp_path / "infer").touch()
            for _ in range(4):
                status, words = await outcome(client, 12)  # type: ignore[misc]
                assert (status, "the worker hangs" in words) == ("INTERNAL", True)
            await until_health(address, NOT_SERVING)
            status, words = await outcome(client, 12)  # type: ignore[misc]
            assert status == "UNAVAILABLE"
            assert "no worker can serve (4 threads hang)" in words
            (tmp_path / "infer").unlink()
            await until_health(address, SERVING)
            assert await outcome(client, 12) == 12.0
            await until(lambda: worker_threads() == others + 1)

    asyncio.run(run())


@pytest.mark.parametrize("method", ["load_model", "warmup"])
def test_a_replacement_that_hangs_is_replaced_and_health_says_so(
    seeded_model: ModelFolder, tmp_path: Path, method: str
) -> None:
    async def run() -> None:
        replica = in_process(faulty(seeded_model, tmp_path))
        async with (
            serving([replica], infer_timeout_s=0.5) as address,
            InferenceClient(address) as client,
        ):
            replica.warmup([8])
            (tmp_path / method).touch()
            assert replica.pid is not None
            os.kill(replica.pid, signal.SIGKILL)
            await until_health(address, NOT_SERVING)
            statuses = set()
            while "UNAVAILABLE" not in statuses:
                statuses.add((await outcome(client, 12))[0])  # type: ignore[index]
            assert await health(address) == NOT_SERVING
            (tmp_path / method).unlink()
            await until_health(address, SERVING)
            assert await outcome(client, 12) == 12.0

    asyncio.run(run())
