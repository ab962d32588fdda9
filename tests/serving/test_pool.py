"""The pool behind a real server: idle models, routing, several models, invalid settings."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from crossbench.backends.noop import NoopBackend
from crossbench.errors import ConfigError, NotServing
from crossbench.load.closed import keep_in_flight
from crossbench.load.requests import RequestOptions, Requests
from crossbench.load.sender import Sender
from crossbench.load.stop import Limits, LimitWatch
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model, fetch_more_models
from crossbench.serving.client import InferenceClient
from crossbench.serving.pool import Pool
from crossbench.serving.pool_settings import PoolSettings
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import DirectScheduler
from crossbench.serving.server import Server
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.token_cache import TokenCache
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.component import Component
from crossbench.settings.plan import CellPlan, make_plan
from crossbench.types import Inference, Pair, QueryPassages, TokenBatch
from tests.helpers.plans import config_of, plan_of
from tests.helpers.serving import ZeroWorker, in_process, noop, noop_of, serving, until

POOL: dict[str, Any] = {
    "_target_": "crossbench.serving.pool_settings.PoolSettings",
    "name": "threads",
    "kind": "thread",
    "workers": "auto",
    "threads": "auto",
    "tokenizers": 1,
    "cache_tokens": 0,
    "routing": "load",
    "idle_seconds": None,
    "infer_timeout_s": 120.0,
    "models": None,
}
PASSAGES = ["a short one", "a passage that is quite a bit longer than the first", "middle sized"]


def pool(**changes: Any) -> PoolSettings:
    """Return pool settings with these changes, checked like those of a cell."""
    made: PoolSettings = Component.of("pool", {**POOL, **changes}).build()
    return made


@dataclass
class CountingBackend(NoopBackend):
    """Counts how often it is loaded and which batches it ran."""

    loads: int = 0
    closes: int = 0
    ran: list[int] = field(default_factory=list)

    def load_model(self) -> None:
        self.loads += 1

    def infer(self, batch: TokenBatch) -> Inference:
        self.ran.append(len(batch))
        return super().infer(batch)

    def close(self) -> None:
        self.closes += 1


def test_an_idle_model_is_unloaded_and_loaded_again_on_demand(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        backend = noop_of(CountingBackend, seeded_model)
        thread, process = Replica(backend, backend, 0.3), in_process(noop(seeded_model), 0.3)
        for replica in (thread, process):
            async with serving([replica]) as address, InferenceClient(address) as client:
                cpu_s = (await client.metrics()).cpu_s
                loaded_mb = 0.0
                for _ in range(2):
                    await until(lambda replica=replica: replica.unloaded and replica.pid is None)
                    scored = [client.score("q", PASSAGES) for _ in range(8)]
                    assert all(len(reply.scores) == 3 for reply in await asyncio.gather(*scored))
                    loaded_mb = max(loaded_mb, (await client.metrics()).rss_mb)
                await until(lambda replica=replica: replica.unloaded and replica.pid is None)
                metrics = await client.metrics()
                if replica is process:
                    assert metrics.rss_mb < loaded_mb - 15  # an interpreter with NumPy
                assert metrics.cpu_s >= cpu_s
                assert not metrics.requests_failed
        # One load at the start and one per reload, or more on a slow machine
        assert backend.loads >= 3
        assert backend.closes == backend.loads + 1  # the last one when the server stops

    asyncio.run(run())


def test_unloading_a_model_frees_its_memory(cache_dir: Path) -> None:
    settings = ("backend=packed", "model.layers=24", "pool.idle_seconds=1", "batch=2")

    async def run() -> None:
        server = make_server(cache_dir, *settings)
        async with InferenceClient(await server.start()) as client:
            try:
                before = (await client.score("q", PASSAGES)).scores
                process = psutil.Process()
                loaded_mb = process.memory_info().rss / 1e6
                (service,) = server._services.values()
                await until(lambda: service.replicas[0].unloaded)
                # The layers take 170 MB and are freed a moment later
                await until(lambda: process.memory_info().rss / 1e6 < loaded_mb - 100)
                assert np.allclose((await client.score("q", PASSAGES)).scores, before, atol=1e-6)
            finally:
                await server.stop()

    asyncio.run(run())


@dataclass
class RestingWorker(ZeroWorker):
    """A worker that unloads slowly after its first batch."""

    released: threading.Event
    unloading: threading.Event = field(default_factory=threading.Event)

    def infer(self, batch: TokenBatch) -> Inference:
        self.idle_check_s = 0.01
        return super().infer(batch)

    def unload_if_idle(self) -> float | None:
        self.unloading.set()
        assert self.released.wait(20)
        raise RuntimeError("the engine would not close")


def test_a_worker_that_unloads_gets_no_work_and_may_fail() -> None:
    released = threading.Event()
    workers = [RestingWorker(released) for _ in range(2)]
    pool = Pool(DirectScheduler("direct"), workers, Telemetry(list), "load", 120.0)
    batch = TokenBatch.from_lengths(np.zeros(2, np.int32), np.zeros(2, np.int32), [2])

    def compute() -> None:
        done = threading.Event()
        pool.submit(batch, None, lambda ticket: done.set())
        assert done.wait(10)

    pool.start()
    try:
        compute()
        (first,) = (worker for worker in workers if worker.idle_check_s)
        assert first.unloading.wait(10)
        compute()  # the other worker computes while the first one is unloading
        assert not released.is_set()
        released.set()
        for _ in range(4):
            compute()
    finally:
        released.set()
        pool.close()
    with pytest.raises(NotServing, match="shutting down"):
        pool.submit(batch, None, lambda ticket: None)


@pytest.mark.parametrize("routing", ["load", "round_robin"])
def test_routing_by_load_or_round_robin(seeded_model: ModelFolder, routing: Any) -> None:
    async def run() -> None:
        backends = [noop_of(CountingBackend, seeded_model) for _ in range(3)]
        scheduler = DirectScheduler("direct")
        async with (
            serving(backends, scheduler, routing) as address,
            InferenceClient(address) as client,
        ):
            for _ in range(9):
                await client.score("q", ["p"])
            counts = sorted(len(backend.ran) for backend in backends)
            assert counts == ([3, 3, 3] if routing == "round_robin" else [0, 0, 9])
            await asyncio.gather(*(client.score("q", ["p"]) for _ in range(30)))
            assert sum(len(backend.ran) for backend in backends) == 39
            if routing == "round_robin":
                assert {len(backend.ran) for backend in backends} == {13}

    asyncio.run(run())


def test_a_dead_worker_gets_no_work_until_it_is_replaced(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        replicas = [in_process(noop(seeded_model)) for _ in range(2)]
        async with (
            serving(replicas, DirectScheduler("direct"), "round_robin") as address,
            InferenceClient(address) as client,
        ):
            first, killed = replicas[0], replicas[0].pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            # On a busy machine the process may live on and still take a request
            await until(lambda: not first.alive() or first.pid != killed)
            await asyncio.gather(*(client.score("q", ["p"]) for _ in range(10)))

    asyncio.run(run())


def make_server(cache_dir: Path, *overrides: str) -> Server:
    plan = plan_of(*overrides, cache_dir=cache_dir)
    return build_server(plan, fetch_model(plan))


def test_several_models_in_one_server(cache_dir: Path, seeded_model: ModelFolder) -> None:
    short = "{base: minilm-l6-seeded, max_length: 16}"
    settings = ("backend=noop", "pool.workers=1", f"pool.models={{short: {short}}}")

    async def run() -> None:
        server = make_server(cache_dir, *settings)
        async with InferenceClient(await server.start()) as client:
            try:
                info = await client.info()
                names = [model.name for model in info.models]
                assert names == [seeded_model.name, "short"]
                assert [model.max_length for model in info.models] == [512, 16]
                passage = "word " * 40
                whole = await client.score("q", [passage])
                cut = await client.score("q", [passage], model="short")
                assert whole.scores[0] > 40
                assert cut.scores[0] == 16
                models = RequestOptions("score", 10.0, ["short", "short", None], None).model_order(
                    names
                )
                requests = Requests([QueryPassages("1", "q", ("p",), (passage,))], 1)
                watch = LimitWatch(Limits(6, 10.0))
                sender = Sender(client, requests, 10.0, watch, asyncio.Event(), models)
                await keep_in_flight(sender, 2)
                by_index = sorted(sender.records, key=lambda record: record.index)
                assert [record.truncated for record in by_index] == [1, 1, 0] * 2
                assert RequestOptions("score", 10.0, "all", None).model_order(names) == names
                with pytest.raises(ConfigError, match="add the missing models to pool"):
                    RequestOptions("score", 10.0, ["tall"], None).model_order(names)
            finally:
                await server.stop()

    asyncio.run(run())


def plan_with_models(models: Any, cache_dir: Path) -> CellPlan:
    config = config_of(f"cache_dir={cache_dir}")
    pool = {**config.section("pool"), "models": models}
    return make_plan(CellConfig({**config.document, "pool": pool}))


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ("minilm-l6", "must be a list of choices"),
        (["tall"], "give one of all-minilm-l6, bge-reranker-base"),
        (["minilm-l6-seeded"], "already has model=minilm-l6-seeded"),
        (["minilm-l6", "minilm-l6"], "has minilm-l6 twice"),
        ({"a": {"base": "minilm-l6-seeded", "depth": 2}}, "has no key depth"),
        ({"a": {"layers": 2}}, "is not a choice of conf/model"),
    ],
)
def test_additional_models_that_cannot_be_served(cache_dir: Path, models: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fetch_more_models(plan_with_models(models, cache_dir), "minilm-l6-seeded")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": 0}, "pool.workers must be a positive whole number or auto, got 0"),
        ({"workers": True}, "pool.workers must be a whole number or auto, got True"),
        ({"threads": [1, 2]}, r"pool.threads must be a whole number or auto, got \[1, 2\]"),
        ({"threads": 64}, "exceeds the 4 cores"),
        ({"kind": "fork"}, "thread or process, got 'fork'"),
        ({"routing": "random"}, "load or round_robin"),
        ({"idle_seconds": 0}, "give null to keep idle models loaded"),
        ({"tokenizers": 0}, "pool.tokenizers"),
        ({"infer_timeout_s": 0}, "give for example pool.infer_timeout_s=120"),
    ],
)
def test_invalid_pool_settings_are_rejected(changes: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        pool(**changes).resolve(4)


def test_threads_are_shared_by_all_replicas_of_all_models() -> None:
    assert pool().resolve(8) == (1, 8)
    assert pool(workers=3).resolve(8) == (3, 2)
    assert pool(workers=2).resolve(8, models=2) == (2, 2)
    assert pool(workers=4).resolve(2) == (4, 1)


def test_a_single_stage(cache_dir: Path, seeded_model: ModelFolder) -> None:
    passages = [*PASSAGES, "word " * 600]
    expected = PairTokenizer(seeded_model).encode_query("q", passages).batch.lengths

    async def run(pipeline: str) -> None:
        server = make_server(cache_dir, "backend=noop", f"pipeline={pipeline}")
        server.precompute_tokens([("q", passages[0]), ("q", passages[1])])
        async with InferenceClient(await server.start()) as client:
            try:
                assert f"pipeline={pipeline}:" in (await client.info()).models[0].caveat
                pairs = [Pair("q", passage) for passage in passages]
                for again in range(2):
                    reply = await client.score("q", passages[again:])
                    spanning = await client.score_pairs(pairs)
                    assert (spanning.tokens, spanning.truncated) == (expected.sum(), 1)
                    scores = [*reply.scores, *spanning.scores]
                    if pipeline == "tokenize":
                        assert not any(scores)
                        assert reply.timing.infer_ms == reply.timing.queue_ms == 0
                    else:
                        assert scores == [*expected[again:], *expected]
                assert bool((await client.metrics()).batches) == (pipeline == "infer")
            finally:
                await server.stop()

    for pipeline in ("tokenize", "infer"):
        asyncio.run(run(pipeline))


def test_a_full_token_cache_still_returns_tokens(seeded_model: ModelFolder) -> None:
    tokenizer = PairTokenizer(seeded_model)
    cache = TokenCache(tokenizer.encode, max_tokens=5)
    texts = [("q", passage) for passage in PASSAGES]
    cache.add(texts[:1])
    for _ in range(2):
        tokenized = cache.get_or_add(texts)
        expected = tokenizer.encode_query("q", PASSAGES)
        assert np.array_equal(tokenized.batch.input_ids, expected.batch.input_ids)
    assert cache.get(texts[:1]) is not None
    assert cache.get(texts) is None


def test_an_unknown_pipeline_is_rejected(cache_dir: Path) -> None:
    with pytest.raises(ConfigError, match="one of full, tokenize, infer, got 'both'"):
        make_server(cache_dir, "pipeline=both")
