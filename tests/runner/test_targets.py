"""target=process: a real server in its own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from crossbench.errors import ConfigError, TargetDied
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
from crossbench.runner.pinning import Cores, cpu_list, own_cores, split_cores
from crossbench.runner.targets import InProcess, SeparateProcess, Target
from crossbench.serving.client import InferenceClient
from tests.helpers.plans import plan_of


def server_factory(cache_dir: Path, *overrides: str):
    """Return the function that builds a small server, as a cell passes it to its target."""
    plan = plan_of("backend=packed", "pool.workers=1", *overrides, cache_dir=cache_dir)
    return partial(build_server, plan, fetch_model(plan))


def test_the_server_process_gives_the_same_scores_and_ends(cache_dir: Path) -> None:
    make_server = server_factory(cache_dir)

    async def scores(target: Target) -> list[float]:
        try:
            async with InferenceClient(await target.open(make_server)) as client:
                return list((await client.score("a query", ["one", "two or three"])).scores)
        finally:
            await target.close()

    separate = SeparateProcess("process")
    found = asyncio.run(scores(separate))
    assert found == pytest.approx(asyncio.run(scores(InProcess("inprocess"))), abs=1e-5)
    assert separate._process is not None
    assert separate._process.pid != os.getpid()
    assert separate._process.returncode == 0
    assert not psutil.pid_exists(separate._process.pid)


def test_the_error_that_prevents_the_start_is_raised(cache_dir: Path) -> None:
    async def opened(make_server) -> None:
        target = SeparateProcess("process")
        try:
            await target.open(make_server)
        finally:
            await target.close()

    with pytest.raises(ConfigError, match=r"pool\.models"):
        asyncio.run(opened(server_factory(cache_dir, "backend=noop", "pool.models=7")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"server.port={taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{port} is already in use"):
            asyncio.run(opened(server_factory(cache_dir, "backend=noop", port)))
    with pytest.raises(
        TargetDied, match="the server process ended with status 3 before it was ready"
    ):
        asyncio.run(opened(partial(os._exit, 3)))
    with pytest.raises(TargetDied, match="the server process failed: ValueError: invalid literal"):
        asyncio.run(opened(partial(int, "not a number")))


@pytest.mark.parametrize(
    ("cores", "client", "server"),
    [
        (3, None, None),
        (4, "0", "1-3"),
        (8, "0", "1-7"),
        (16, "0-1", "2-15"),
    ],
)
def test_the_client_gets_a_core_of_eight(
    cores: int, client: str | None, server: str | None
) -> None:
    split = split_cores([[cpu] for cpu in range(cores)])
    found = (None, None) if split is None else (cpu_list(split.client), cpu_list(split.server))
    assert found == (client, server)


def test_the_threads_of_a_core_stay_together() -> None:
    """Eight logical CPUs are four cores, of which the client gets one with both its threads."""
    split = split_cores([[0, 4], [1, 5], [2, 6], [3, 7]])
    assert split == Cores((0, 4), (1, 2, 3, 5, 6, 7))
    assert cpu_list(split.server) == "1-3,5-7"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins processes to cores")
def test_client_and_server_have_cores_of_their_own_until_the_end(cache_dir: Path) -> None:
    before = os.sched_getaffinity(0)
    first, last = min(before), max(before)
    assert {cpu for core in own_cores() for cpu in core} <= before
    target = SeparateProcess("process")
    assert target.cores == split_cores(own_cores())
    target.cores = Cores((first,), (last,))  # as if there were enough
    make_server = server_factory(cache_dir, "backend=noop")

    def affinities(pid: int) -> set[tuple[int, ...]]:
        found = set()
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                found.add(tuple(os.sched_getaffinity(thread.id)))
        return found

    async def opened() -> int:
        try:
            async with InferenceClient(await target.open(make_server)) as client:
                await asyncio.to_thread(time.sleep, 0.0)  # a thread that starts later
                assert affinities(os.getpid()) == {(first,)}
                assert target._process is not None
                assert affinities(target._process.pid) == {(last,)}
                return (await client.info()).threads
        finally:
            await target.close()

    assert asyncio.run(opened()) == 1  # the server counts its own cores
    assert affinities(os.getpid()) == {tuple(before)}
