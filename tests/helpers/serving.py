"""A real server in the test process, for tests that send gRPC requests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from crossbench.backends.base import Backend, Deployment
from crossbench.backends.noop import NoopBackend
from crossbench.backends.pytorch import PyTorchBackend
from crossbench.load.closed import ClosedLoop
from crossbench.load.protocol import LoadContext
from crossbench.load.stop import Limits
from crossbench.measure.memory import PeakRss
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.connections import ConnectionLimits
from crossbench.serving.http.settings import HttpSettings
from crossbench.serving.pool import Pool
from crossbench.serving.pool_settings import Routing
from crossbench.serving.process_engine import ProcessEngine
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import DynamicScheduler, Scheduler
from crossbench.serving.server import Server
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.tls import ServerTls
from crossbench.serving.tokenizing import Tokenizing
from crossbench.settings.cell_settings import CellSettings
from crossbench.types import Inference, Quant, TokenBatch

NoopT = TypeVar("NoopT", bound=NoopBackend)

SETTINGS = ServerSettings(
    name="test",
    host="127.0.0.1",
    port=0,
    max_pairs=64,
    max_request_bytes=200_000,
    max_text_bytes=100_000,
    max_queue_pairs=64,
    max_queue_ms=None,
    max_pending_requests=1000,
    grace_s=2.0,
    tls=ServerTls(None, None, None),
    token_file=None,
    connections=ConnectionLimits(256, 20_000, 4, 600.0, None),
    http=HttpSettings(None, 30.0),
)


def deployment(model: ModelFolder, cache_dir: Path, quant: Quant = Quant.FP32) -> Deployment:
    return Deployment(model, quant, "cpu", 2, cache_dir)


def noop(
    model: ModelFolder, us_per_pair: float = 0.0, kind: Literal["sleep", "busy"] = "sleep"
) -> NoopBackend:
    return NoopBackend("noop", deployment(model, Path()), us_per_pair, kind)


def noop_of(variant: type[NoopT], model: ModelFolder) -> NoopT:
    """Return a test's own variant of noop, which answers at once."""
    return variant("noop", deployment(model, Path()), 0.0, "sleep")


@dataclass
class GatedBackend(NoopBackend):
    """A noop backend that waits for the test's signal and records its batches."""

    gate: threading.Event = field(default_factory=threading.Event)
    ran: list[int] = field(default_factory=list)

    def infer(self, batch: TokenBatch) -> Inference:
        self.ran.append(len(batch))
        assert self.gate.wait(20)
        return super().infer(batch)


class ZeroWorker:
    """A worker of a pool that never dies and scores everything 0."""

    idle_check_s: float | None = None

    def infer(self, batch: TokenBatch) -> Inference:
        return Inference(np.zeros(len(batch), dtype=np.float32), batch.total_tokens)

    def alive(self) -> bool:
        return True

    def replace(self) -> None:
        raise AssertionError("it never dies")

    def kill(self) -> bool:
        return False

    def renew(self) -> None:
        raise AssertionError("it never hangs")

    @property
    def loading_limit_s(self) -> float | None:
        return None

    def unload_if_idle(self) -> float | None:
        return None


def gated(model: ModelFolder) -> GatedBackend:
    return noop_of(GatedBackend, model)


def closed_loop(settings: CellSettings) -> ClosedLoop:
    limits = Limits(settings.requests, settings.max_seconds)
    context = LoadContext(settings.concurrency, settings.seed, limits, settings.max_seconds)
    return ClosedLoop("closed", ["concurrency"], context)


def pytorch(model: ModelFolder, cache_dir: Path, quant: Quant = Quant.FP32) -> PyTorchBackend:
    backend = PyTorchBackend("pytorch", deployment(model, cache_dir, quant))
    backend.load_model()
    return backend


def in_process(backend: Backend, idle_seconds: float | None = None) -> Replica:
    return Replica(backend, ProcessEngine(backend), idle_seconds)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a timeout that suffices on a busy machine."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(
    replicas: Sequence[Backend | Replica], *arguments: Any, **options: Any
) -> AsyncIterator[str]:
    """Start a server as running() does, and yield HOST:PORT."""
    async with running(replicas, *arguments, **options) as server:
        yield server.address


@contextlib.asynccontextmanager
async def running(
    replicas: Sequence[Backend | Replica],
    scheduler: Scheduler | None = None,
    routing: Routing = "load",
    own_peak: PeakRss | None = None,
    infer_timeout_s: float = 120.0,
    **changes: object,
) -> AsyncIterator[Server]:
    """Start a server with these replicas and yield it. `changes` are settings."""
    settings = dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type]
    workers = [item if isinstance(item, Replica) else Replica(item, item) for item in replicas]
    for worker in workers:
        worker.load()
    model = workers[0].backend.deployment.model
    telemetry = Telemetry(
        lambda: [worker.pid for worker in workers if worker.pid is not None], own_peak
    )
    scheduler = scheduler or DynamicScheduler("dynamic", 256, 5.0)
    pool = Pool(scheduler, workers, telemetry, routing, infer_timeout_s)
    service = ModelService(
        model,
        workers,
        PairTokenizer(model),
        activation_of(model),
        pool,
        Tokenizing(1),
    )
    info = pb.ServerInfo(models=[pb.ModelInfo(name=model.name)], max_pairs=settings.max_pairs)
    server = Server({model.name: service}, settings, telemetry, info)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
