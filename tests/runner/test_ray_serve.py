"""target=ray_serve on a real Ray: a cluster of two nodes, and Rays that crossbench starts."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from crossbench.errors import ConfigError, CrossbenchError, ModelError, TargetDied
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
from crossbench.runner.ray_session import FAST
from crossbench.runner.ray_target import RayServe
from crossbench.runner.targets import InProcess
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.access import ClientAccess
from crossbench.serving.client import InferenceClient
from tests.helpers.commands import QUICK, crossbench, results, start, the_sweep
from tests.helpers.places import REPO
from tests.helpers.plans import plan_of
from tests.helpers.serving import until

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LISTS = [(f"query number {n}", [f"passage {n} of {k} words" for k in range(5)]) for n in range(20)]
QUICK_CELL = (*QUICK, "tracker=none", "quality=none", "pool.workers=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray of two nodes with a core each, on this machine."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="cb-") as folder:
        patch.setenv("PYTHONPATH", str(REPO))  # for the processes that Ray starts
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in FAST.items():
            patch.setenv(name, value)
        options = {"num_cpus": 1, "object_store_memory": 80_000_000}
        head = {**options, "temp_dir": folder, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(**options)
        try:
            yield nodes.address
        finally:
            nodes.shutdown()


def target_of(plan) -> RayServe:
    target = plan.target.build()
    assert isinstance(target, RayServe)
    return target


@asynccontextmanager
async def served(cluster: str, cache_dir: Path, *overrides: str) -> AsyncIterator[str]:
    """Serve the seeded model with two replicas, one on each node, and yield HOST:PORT."""
    plan = plan_of(
        "target=ray_serve",
        "target.replicas=2",
        f"target.address={cluster}",
        *overrides,
        cache_dir=cache_dir,
    )
    target = target_of(plan)
    try:
        yield await target.open(partial(build_server, plan, fetch_model(plan)))
    finally:
        await target.close()


@asynccontextmanager
async def on_ray(cluster: str, cache_dir: Path, *overrides: str) -> AsyncIterator[InferenceClient]:
    """Serve as served() does, and yield a client."""
    async with (
        served(cluster, cache_dir, *overrides) as address,
        InferenceClient(address) as client,
    ):
        yield client


async def scores_of(client: InferenceClient) -> list[np.ndarray]:
    return [(await client.score(query, passages)).scores for query, passages in LISTS]


async def expected_scores(cache_dir: Path) -> list[np.ndarray]:
    plan = plan_of("backend=packed", cache_dir=cache_dir)
    target = InProcess("inprocess")
    try:
        make_server = partial(build_server, plan, fetch_model(plan), cores=1)
        async with InferenceClient(await target.open(make_server)) as client:
            return await scores_of(client)
    finally:
        await target.close()


def replica_pids() -> list[int]:
    """The processes of all replicas, which are below this one."""
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if any(word.startswith("ray::ServeReplica") for word in command(child))
    ]


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def status(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def test_two_nodes_score_as_one_process(cluster: str, cache_dir: Path) -> None:
    """Scores, statuses, and the counters of both replicas."""

    async def run() -> None:
        async with on_ray(cluster, cache_dir, "backend=packed") as client:
            expected = await expected_scores(cache_dir)
            for _ in range(3):
                found = await scores_of(client)
                np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5)
            info = await client.info()
            assert (info.workers, info.threads) == (2, 1)
            metrics = await client.metrics()
            assert (metrics.replicas, metrics.replicas_missing) == (2, 0)
            assert (metrics.requests_ok, metrics.pairs) == (60, 300)
            assert metrics.latency_ms.count == 60

            assert await status(client.score("", ["a"])) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "text 0 of query is empty: send text, or omit it",
            )
            long = pb.ScoreRequest(query="q", passages=["word " * 900_000])
            assert (await status(client.send_score(long)))[0] is grpc.StatusCode.INVALID_ARGUMENT
            code, details = await status(client.embed(["a"]))
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "is a cross-encoder" in details

            stream = client.watch_metrics(0.05)
            assert (await anext(stream)).requests_failed == {
                "INVALID_ARGUMENT": 2,
                "FAILED_PRECONDITION": 1,
            }
            await stream.aclose()
            code, details = await status(anext(client.watch_metrics(1e9)))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "interval_s must be" in details

            await client.reset_metrics()
            metrics = await client.metrics()
            assert (metrics.requests_ok, dict(metrics.requests_failed)) == (0, {})
            assert metrics.replicas == 2
            assert metrics.cpu_s > 0

    asyncio.run(run())


def test_a_replica_is_killed_under_load(cluster: str, cache_dir: Path) -> None:
    """Requests that it had fail with a status, no score is wrong, and Ray starts another one."""

    async def run() -> None:
        expected = await expected_scores(cache_dir)
        statuses: dict[str, int] = {}
        done = asyncio.Event()
        answered = 0

        async def user(client: InferenceClient, number: int) -> None:
            nonlocal answered
            while not done.is_set():
                query, passages = LISTS[number]
                message = pb.ScoreRequest(query=query, passages=passages)
                try:
                    reply = await client.send_score(message, 60.0)
                except grpc.aio.AioRpcError as error:
                    name = error.code().name
                    statuses[name] = statuses.get(name, 0) + 1
                else:
                    np.testing.assert_allclose(reply.scores, expected[number], atol=1e-5)
                    answered += 1

        async with on_ray(cluster, cache_dir, "backend=packed") as client:
            users = [asyncio.create_task(user(client, number)) for number in range(16)]
            await until(lambda: answered >= 100)
            victim, _ = replica_pids()
            os.kill(victim, signal.SIGKILL)
            at_kill = answered
            await until(lambda: answered >= at_kill + 100)
            await until(lambda: len(replica_pids()) == 2)

            async def both_answer() -> bool:
                return (await client.metrics(10.0)).replicas == 2

            while not await both_answer():
                await asyncio.sleep(0.1)
            done.set()
            await asyncio.gather(*users)
            assert set(statuses) <= {"INTERNAL", "UNAVAILABLE"}, statuses
            assert sum(statuses.values()) <= 16  # at most those that the replica had
            metrics = await client.metrics()
            assert metrics.since_reset_s < metrics.uptime_s  # the counters of one are new

    asyncio.run(run())


def test_a_full_queue_and_a_deadline(cluster: str, cache_dir: Path) -> None:
    """Admission works in each replica, with its advice, and a late request is taken back."""

    async def run() -> None:
        slow = ("backend=noop", "backend.service_us_per_pair=200000", "server.max_queue_pairs=4")
        async with on_ray(cluster, cache_dir, *slow, "scheduler=direct") as client:
            message = pb.ScoreRequest(query="q", passages=["a"] * 4)
            code, _ = await status(client.send_score(message, 0.3))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            calls = [asyncio.create_task(client.send_score(message)) for _ in range(12)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            refused = [a for a in answers if isinstance(a, grpc.aio.AioRpcError)]
            assert refused
            assert len(refused) < 12
            for error in refused:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                trailing = dict(error.trailing_metadata())
                assert int(trailing["grpc-retry-pushback-ms"]) > 0
            metrics = await client.metrics()
            assert metrics.requests_failed["RESOURCE_EXHAUSTED"] == len(refused)
            assert metrics.requests_failed["CANCELLED"] == 1

    asyncio.run(run())


def test_every_proxy_asks_for_the_token(cluster: str, cache_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-of-twenty-letters")
    file.chmod(0o600)
    access = ClientAccess(None, None, None, None, str(file))

    async def run() -> None:
        token = ("backend=noop", f"server.token_file={file}", "target.proxies=every_node")
        async with served(cluster, cache_dir, *token) as address:
            async with InferenceClient(address, access) as client:
                assert len((await client.score("q", ["a"])).scores) == 1
            async with InferenceClient(address) as stranger:
                code, details = await status(stranger.score("q", ["a"]))
                assert code is grpc.StatusCode.UNAUTHENTICATED
                assert "wants a token" in details
                code, _ = await status(anext(stranger.watch_metrics(1.0)))
                assert code is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(run())


def test_why_it_cannot_start(cluster: str, cache_dir: Path) -> None:
    """Each reason is the replica's own, with its type."""

    def plan(*overrides: str):
        words = ("target=ray_serve", f"target.address={cluster}", "backend=noop", *overrides)
        return plan_of(*words, cache_dir=cache_dir)

    async def run() -> None:
        model = fetch_model(plan())
        odd = plan("pool.models=[minilm-l6-seeded]")
        await refused(odd, partial(build_server, odd, model), ConfigError, "pool.models")
        huge = plan("target.cpus=64")
        await refused(huge, partial(build_server, huge, model), ConfigError, "room for 0")
        gone = plan("model=local", f"model.path={cache_dir}/gone")
        elsewhere = dataclasses.replace(model, path=cache_dir / "elsewhere")
        await refused(gone, partial(build_server, gone, elsewhere), ModelError, "gone")

    asyncio.run(run())


def test_a_replica_that_dies_while_it_starts(cluster: str, cache_dir: Path) -> None:
    plan = plan_of("target=ray_serve", f"target.address={cluster}", cache_dir=cache_dir)
    asyncio.run(refused(plan, partial(die, 3), TargetDied, "a replica cannot start"))


def die(code: int, cores: int) -> None:
    os._exit(code)


async def refused(
    plan, make_server: Callable[..., Any], error: type[CrossbenchError], told: str
) -> None:
    target = target_of(plan)
    try:
        with pytest.raises(error, match=told):
            await target.open(make_server)
    finally:
        await target.close()


def test_a_cluster_that_is_in_use(
    cluster: str, cache_dir: Path, outputs: Path, environment: dict[str, str]
) -> None:
    """A cell ends with the reason, whether another one serves there or its cores are taken."""
    here = ("target=ray_serve", f"target.address={cluster}", "backend=noop", *QUICK_CELL)

    def error_of(folder: str, *overrides: str) -> str:
        place = outputs / folder
        done = crossbench(*here, *overrides, outputs=place, environment=environment)
        assert done.returncode == 1
        (result,) = results(the_sweep(place))
        return str(result["error"])

    async def second() -> str:
        async with served(cluster, cache_dir, "backend=noop"):
            return await asyncio.to_thread(error_of, "second")

    assert "Ray Serve runs already on this cluster" in asyncio.run(second())

    import ray

    ray.init(address=cluster, log_to_driver=False)
    try:
        worker = ray.remote(Holder).options(num_cpus=1).remote()
        assert ray.get(worker.holds.remote())
        told = error_of("busy", "target.replicas=2", "target.place_timeout_s=3")
    finally:
        ray.shutdown()
    assert "Ray found a place for 1 of 2 replicas within 3 s" in told


class Holder:
    """An actor that holds its cores."""

    def holds(self) -> bool:
        return True


def rays() -> list[int]:
    """The processes of all Rays that crossbench has started, by their folders."""
    return [
        process.pid
        for process in psutil.process_iter()
        if any("/cb-" in word for word in command(process))
    ]


def test_whole_cells_and_their_report(outputs: Path, environment: dict[str, str]) -> None:
    """A sweep over two numbers of replicas, each cell with a Ray of its own that ends with it."""
    before = set(rays())
    arguments = ("-m", "target=ray_serve", "target.replicas=1,2", "backend=noop", "concurrency=4")
    done = crossbench(*arguments, *QUICK_CELL, outputs=outputs, environment=environment)
    assert done.returncode == 0, done.stderr
    found = results(the_sweep(outputs))
    assert [result["status"] for result in found] == ["finished", "finished"]
    assert [result["model"]["workers"] for result in found] == [1, 2]
    for result in found:
        metrics = result["metrics"]
        assert metrics["requests/ok"] > 10
        assert metrics["memory/rss_peak_mb"] > 100
        assert metrics["cpu/cores_used"] > 0
        assert metrics["stage/infer_p50_ms"] >= 0
    report = (the_sweep(outputs) / "report.md").read_text("utf-8")
    assert "replicas=2" in report
    assert set(rays()) <= before


def test_a_cell_says_why_it_failed(outputs: Path, environment: dict[str, str]) -> None:
    """Nothing waits for a place that does not exist."""
    arguments = ("target=ray_serve", "target.cpus=64", "backend=noop")
    done = crossbench(*arguments, *QUICK_CELL, outputs=outputs, environment=environment)
    assert done.returncode == 1
    (result,) = results(the_sweep(outputs))
    assert "64 cores each do not fit" in str(result["error"])


def test_the_command_serves_until_a_signal(outputs: Path, environment: dict[str, str]) -> None:
    before = set(rays())
    arguments = ("target=ray_serve", "backend=noop", "server.port=0")
    process = start(*arguments, outputs=outputs, environment=environment, module="crossbench.serve")
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("listening on "))
    address = line.split()[2]

    async def call() -> None:
        async with InferenceClient(address) as client:
            assert len((await client.score("q", ["a", "b"])).scores) == 2

    asyncio.run(call())
    assert set(rays()) > before
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.endswith("ended\n")
    assert not errors  # such as the stack trace that Ray's own handler prints
    assert set(rays()) <= before
