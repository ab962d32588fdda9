"""target=process: a real server in its own process."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from pathlib import Path

import psutil
import pytest

from crossbench.errors import ConfigError, TargetDied
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
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
