"""target=process: a real server in a real process of its own."""

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


def recipe(cache_dir: Path, *overrides: str):
    """What a cell hands to its target, of a small and quick server."""
    plan = plan_of("backend=packed", "pool.workers=1", *overrides, cache_dir=cache_dir)
    return partial(build_server, plan, fetch_model(plan))


def test_it_scores_as_the_server_in_process_does_and_ends(cache_dir: Path) -> None:
    make_server = recipe(cache_dir)

    async def scores(target: Target) -> list[float]:
        try:
            async with InferenceClient(await target.open(make_server)) as client:
                return list((await client.score("a query", ["one", "two or three"])).scores)
        finally:
            await target.close()

    apart = SeparateProcess("process")
    found = asyncio.run(scores(apart))
    assert found == pytest.approx(asyncio.run(scores(InProcess("inprocess"))), abs=1e-5)
    assert apart._process is not None
    assert apart._process.pid != os.getpid()
    assert apart._process.returncode == 0
    assert not psutil.pid_exists(apart._process.pid)


def test_what_keeps_it_from_serving_is_told(cache_dir: Path) -> None:
    async def opened(make_server) -> None:
        target = SeparateProcess("process")
        try:
            await target.open(make_server)
        finally:
            await target.close()

    with pytest.raises(ConfigError, match=r"pool\.models"):
        asyncio.run(opened(recipe(cache_dir, "backend=noop", "pool.models=7")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"server.port={taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{port} is already in use"):
            asyncio.run(opened(recipe(cache_dir, "backend=noop", port)))
    with pytest.raises(TargetDied, match="the server process ended with status 3 before it served"):
        asyncio.run(opened(partial(os._exit, 3)))
    with pytest.raises(TargetDied, match="the server process failed: ValueError: invalid literal"):
        asyncio.run(opened(partial(int, "not a number")))
