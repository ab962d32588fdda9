"""Strangers' bytes on the wire: no crash, no hang, no leak, and no wrong score for a neighbour."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from sentence_transformers import CrossEncoder

from benchmarks.known_scores import TOLERANCE, take, texts
from benchmarks.served import served
from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from tests.helpers.fuzz_cases import cases
from tests.helpers.fuzz_http2 import Rubbish, call, headers, message, rubbish, throw, throw_all
from tests.helpers.fuzzing import Innocents, Storm
from tests.helpers.serving import noop, pytorch, serving, until
from tests.helpers.tiny_seeded import tiny_seeded
from tests.helpers.wire import score_request

BOUND_S = 60.0  # no call may take longer, whatever else the machine does
SHORT, LONG = 2000, 100_000
MB = 1e6


def seed() -> int:
    """Return the seed of this run: CROSSBENCH_SEED, or a new one. pytest prints it on failure."""
    chosen = int(os.environ.get("CROSSBENCH_SEED", random.randrange(1 << 30)))
    print(f"CROSSBENCH_SEED={chosen}")
    return chosen


async def idle(client: InferenceClient) -> None:
    """Wait until the server has nothing left of all that was asked."""
    for _ in range(600):
        metrics = await client.metrics()
        if not metrics.requests_in_flight and not metrics.queue_pairs:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{metrics.requests_in_flight} requests never ended")


async def storm(address: str, chosen: int, count: int, process: psutil.Process) -> dict[str, float]:
    """Send `count` inputs and rubbish on sockets. Returns memory in MB after parts of it."""
    async with InferenceClient(address) as client:
        known = await take(client, texts(0, 20, 4))
        innocents = Innocents(address, known, chosen, 2, BOUND_S)
        wrong = Storm(address, 48, BOUND_S)
        working = asyncio.create_task(innocents.work())
        memory_mb = {}
        for part in range(5):
            await wrong.rage(cases(chosen + part, count // 5))
            memory_mb[f"{20 * (part + 1)} %"] = process.memory_info().rss / MB
        ends = await throw_all(address, rubbish(chosen, count // 100), 32, 0.3)
        innocents.stop()
        await working
        await idle(client)
    kinds = Counter(status for (_, status), times in wrong.statuses.items() for _ in range(times))
    print(f"{wrong.sent:,} calls: {dict(kinds)}; {ends.total()} connections")
    print(f"innocent: {dict(innocents.statuses)}, slowest {innocents.slowest_s:.1f} s; {memory_mb}")
    assert not wrong.faults, (len(wrong.faults), wrong.faults[:10])
    assert not innocents.faults, innocents.faults[:10]
    assert innocents.statuses["OK"] > innocents.statuses.total() / 2
    assert kinds["NOT SENT"] < wrong.sent / 50
    return memory_mb


def test_strangers_bytes_hurt_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        model = tiny_seeded(tmp_path)
        async with serving([pytorch(model, tmp_path)], max_queue_pairs=2000) as address:
            await storm(address, seed(), SHORT, psutil.Process())

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    logged = [record.getMessage() for record in caplog.records]
    # gRPC itself logs metadata that is not UTF-8, and goes on
    assert not [line for line in logged if not line.startswith("Invalid encoding on")]


@pytest.mark.slow
def test_a_hundred_thousand_inputs(tmp_path: Path) -> None:
    """A server process with a real model; its scores are also those of the library."""
    model = tiny_seeded(tmp_path)
    library = CrossEncoder(str(model.path), device="cpu")

    async def compare(address: str) -> None:
        async with InferenceClient(address) as client:
            for item in await take(client, texts(0, 20, 4)):
                expected = library.predict([(item.query, passage) for passage in item.passages])
                assert np.abs(expected - item.scores).max() < TOLERANCE

    choices = ["backend=pytorch", "model=local", f"model.path={model.path}", "dashboard=none"]
    with served(choices, tmp_path) as server:
        asyncio.run(compare(server.address))
        memory_mb = asyncio.run(storm(server.address, seed(), LONG, server.process))
        asyncio.run(compare(server.address))
        assert not server.tracebacks()
    # After the first fifths, what has grown is the allocator's reserve, not what was asked
    assert memory_mb["100 %"] < 1.1 * memory_mb["40 %"] + 50


def test_a_path_that_is_not_utf8_ends_only_its_own_call(seeded_model: ModelFolder) -> None:
    """grpc.aio's server would shut down: it decodes the path where it accepts all calls."""

    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            host, _, port = address.rpartition(":")
            for path in (b"\xff", b"/crossbench.v1.Inference/\xc3", b"/\x00", b""):
                good = message(score_request(b"q", [b"p"]))
                ended = await throw(host, int(port), Rubbish("", call(headers(path), good)), 30.0)
                assert ended == "status 12"  # UNIMPLEMENTED
                assert len((await client.score("q", ["p"])).scores) == 1

    asyncio.run(run())


def test_a_client_that_sends_no_message_keeps_nobody(seeded_model: ModelFolder) -> None:
    """grpc.aio never answers a unary call without a message; when its client goes, it is gone."""

    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            host, _, port = address.rpartition(":")
            nothing = Rubbish("", call(headers(), b""))
            ends = await asyncio.gather(*(throw(host, int(port), nothing, 0.2) for _ in range(20)))
            assert len((await client.score("q", ["p"])).scores) == 1
            assert set(ends) <= {"silent", "closed", "status 13"}
            await until(lambda: len(asyncio.all_tasks()) < 40)
            await idle(client)

    asyncio.run(run())
