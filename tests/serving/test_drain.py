"""`crossbench serve` on signals: requests in flight are answered, and it ends, whatever hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crossbench.models.folder import ModelFolder
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
from crossbench.serving.client import InferenceClient
from tests.helpers.faulty import Fault, faulty_options, passage_of
from tests.helpers.places import REPO
from tests.helpers.plans import plan_of
from tests.helpers.serving import until

HEALTH = health_pb2.HealthCheckResponse
GRACE_S = 1.0
BUSY_S = 3.0  # what a busy machine may add to the times that are promised


@dataclass
class Serve:
    """A running `crossbench serve`."""

    process: subprocess.Popen[str]
    folder: Path
    cache: Path

    def address(self) -> str:
        """Wait until it listens."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"listening on (\S+)", line):
                return found[1]
        raise AssertionError("it does not listen")

    def until_in(self, method: str) -> None:
        """Wait until its backend hangs in a method."""
        end = time.monotonic() + 60
        while not (self.cache / f"{method}.reached").exists():
            assert time.monotonic() < end
            time.sleep(0.02)

    def end(self, *numbers: signal.Signals, within_s: float) -> None:
        """Send the signals; check the exit status, the time, and that nothing is left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.2)
        self.check_end(children, within_s)

    def check_end(self, children: list[psutil.Process], within_s: float) -> None:
        started_s = time.monotonic()
        _, errors = self.process.communicate(timeout=60)
        assert time.monotonic() - started_s < within_s + BUSY_S
        assert self.process.returncode == 0, errors
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        assert not list((self.folder / "tmp").glob("crossbench-*"))


@contextlib.contextmanager
def serve(folder: Path, model: ModelFolder, *options: str) -> Iterator[Serve]:
    (folder / "tmp").mkdir()
    cache = folder / "cache"
    cache.mkdir()
    (cache / model.path.name).symlink_to(model.path)
    command = [
        *(sys.executable, "-m", "crossbench.serve", *faulty_options(folder)),
        *("server.port=0", "dashboard=none", f"server.grace_s={GRACE_S}", f"cache_dir={cache}"),
    ]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(folder / "tmp")},
    )  # fmt: skip
    try:
        yield Serve(process, folder, cache)
    finally:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.communicate()


async def code_of(request: Awaitable[object]) -> tuple[str, str]:
    """Return the status and the words of a request."""
    try:
        await request
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


@contextlib.asynccontextmanager
async def watched_health(address: str) -> AsyncIterator[Callable[[], int]]:
    """Watch the health over one connection; yield a function that returns the latest status."""
    latest = HEALTH.UNKNOWN

    async def watch() -> None:
        nonlocal latest
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = health_pb2_grpc.HealthStub(channel)
            async for reply in stub.Watch(health_pb2.HealthCheckRequest()):
                latest = reply.status

    async with grpc.aio.insecure_channel(address) as channel:
        task = asyncio.create_task(watch())
        yield lambda: latest
        task.cancel()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGHUP,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_drains(tmp_path: Path, seeded_model: ModelFolder, number: signal.Signals) -> None:
    options = ("backend.service_us_per_pair=500000", "server.grace_s=30", "scheduler=direct")

    async def run(server: Serve, address: str) -> None:
        async with InferenceClient(address) as client, watched_health(address) as health:
            await until(lambda: health() == HEALTH.SERVING)
            accepted = [
                asyncio.create_task(client.score("q", [passage_of(n)])) for n in range(10, 14)
            ]
            await asyncio.sleep(0.2)
            server.process.send_signal(number)
            await until(lambda: health() == HEALTH.NOT_SERVING)
            assert not all(task.done() for task in accepted)
            status, words = await code_of(client.score("q", ["p"]))
            assert (status, "the server is shutting down" in words) == ("UNAVAILABLE", True)
            replies = await asyncio.gather(*accepted)
            assert [reply.scores[0] for reply in replies] == [10, 11, 12, 13]

    with serve(tmp_path, seeded_model, *options) as server:
        asyncio.run(run(server, server.address()))
        server.check_end([], within_s=2)


@pytest.mark.slow
@pytest.mark.parametrize("dashboard", ["web", "none"])
def test_a_killed_server_leaves_no_process_and_no_temporary_folder(
    tmp_path: Path, seeded_model: ModelFolder, dashboard: str
) -> None:
    options = [f"dashboard={dashboard}", *(["dashboard.port=0"] if dashboard == "web" else [])]
    with serve(tmp_path, seeded_model, *options) as server:
        server.address()
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.STOPS])
@pytest.mark.parametrize("signals", [1, 2])
def test_it_ends_although_a_worker_hangs(
    tmp_path: Path, seeded_model: ModelFolder, fault: Fault, signals: int
) -> None:
    # A thread that hangs, or a process that is stopped
    pool = "pool=threads" if fault == Fault.HANGS else "pool=processes"
    grace_s = 60.0 if signals == 2 else GRACE_S

    async def run(server: Serve, address: str) -> None:
        async with InferenceClient(address) as client:
            doomed = asyncio.create_task(code_of(client.score("q", [fault.passage])))
            await asyncio.to_thread(server.until_in, "infer")
            behind = asyncio.create_task(code_of(client.score("q", ["p"])))
            await asyncio.sleep(0.2)
            within_s = 1.0 if signals == 2 else GRACE_S + 2
            numbers = [signal.SIGTERM] * signals
            await asyncio.to_thread(lambda: server.end(*numbers, within_s=within_s))
            for status, words in (await doomed, await behind):
                assert status == "UNAVAILABLE", words
                assert signals == 2 or "the server is shutting down" in words

    options = (pool, "scheduler=direct", f"server.grace_s={grace_s}")
    with serve(tmp_path, seeded_model, *options) as server:
        asyncio.run(run(server, server.address()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["load_model", "warmup"])
@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_it_ends_while_its_backend_hangs_in_loading(
    tmp_path: Path, seeded_model: ModelFolder, method: str, pool: str
) -> None:
    with serve(tmp_path, seeded_model, f"pool={pool}", "server.grace_s=60") as server:
        (server.cache / method).touch()
        server.until_in(method)
        server.end(signal.SIGTERM, within_s=2)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_it_ends_although_its_backend_hangs_in_unloading(
    tmp_path: Path, seeded_model: ModelFolder, pool: str
) -> None:
    with serve(tmp_path, seeded_model, f"pool={pool}") as server:
        server.address()
        (server.cache / "close").touch()
        server.end(signal.SIGTERM, within_s=GRACE_S + 2)


def test_a_tokenizer_that_hangs_does_not_hold_up_the_end(cache_dir: Path) -> None:
    async def run() -> float:
        plan = plan_of("backend=noop", "server.grace_s=0.3", cache_dir=cache_dir)
        server = build_server(plan, fetch_model(plan))
        async with InferenceClient(await server.start()) as client:
            (service,) = server._services.values()
            service.tokenizing._executor.submit(released.wait)  # its only thread
            stuck = asyncio.create_task(code_of(client.score("q", ["long " * 10_000])))
            await until(lambda: service.tokenizing.waiting_texts)
            started_s = time.monotonic()
            await server.stop(0.3)
            assert (await stuck)[0] == "UNAVAILABLE"
            return time.monotonic() - started_s

    released = threading.Event()
    try:
        assert asyncio.run(run()) < 1 + BUSY_S
    finally:
        released.set()
