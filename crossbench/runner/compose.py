"""Build a server from the plan of a cell.

This file is the composition root: only it knows how the config groups fit together. All other
modules receive objects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata

import numpy as np

from crossbench.backends.base import Backend, Deployment, Layout
from crossbench.load.lengths import PASSAGES, QUERIES
from crossbench.measure.probes import usable_cores
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.runner.models import fetch_more_models, on_this_machine
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.info import model_info
from crossbench.serving.pool import Pool
from crossbench.serving.pool_settings import PoolSettings
from crossbench.serving.process_engine import ProcessEngine
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import Scheduler
from crossbench.serving.server import Server
from crossbench.serving.server_settings import ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.startup import build_artifacts, load_and_warm
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.token_cache import TokenCache
from crossbench.serving.tokenizing import Tokenizing
from crossbench.settings.component import Component
from crossbench.settings.plan import CellPlan
from crossbench.types import Pipeline

WARMUP_SEQUENCES = 32


def build_server(
    plan: CellPlan,
    model: ModelFolder,
    known: Sequence[tuple[str, str]] = (),
    cores: int | None = None,
) -> Server:
    """Return a server with `model` and the models of `pool.models`, loaded and warmed up.

    With pipeline=infer, the (query, passage) pairs in `known` are tokenized in advance. `cores` is
    the number of CPU cores that the replicas share; None: all that this process may use.

    Raises:
        BackendUnavailable, ModelError, ConfigError: see their docstrings.
    """
    assert plan.server is not None, "the server of this plan is already running"
    limits: ServerSettings = plan.server.build()
    pool: PoolSettings = plan.pool.build()
    models = [on_this_machine(plan, model), *fetch_more_models(plan, model.name)]
    workers, threads = pool.resolve(cores or usable_cores(), len(models), len(plan.devices))
    make_replica = _replica_maker(plan, pool, threads)
    replicas = {
        served.name: [make_replica(served, number) for number in range(workers)]
        for served in models
    }
    all_replicas = [replica for group in replicas.values() for replica in group]
    telemetry = Telemetry(lambda: [item.pid for item in all_replicas if item.pid is not None])
    startup = _load(plan, pool, replicas, telemetry)

    tokenizing = Tokenizing(pool.tokenizers)
    services = {
        served.name: _service(plan, pool, served, replicas[served.name], telemetry, tokenizing)
        for served in models
    }
    info = pb.ServerInfo(
        models=[model_info(service, plan.settings.pipeline) for service in services.values()],
        scheduler=plan.scheduler.name,
        workers=sum(len(service.pool.workers) for service in services.values()),
        threads=threads,
        max_pairs=limits.max_pairs,
        max_queue_pairs=limits.max_queue_pairs,
        max_request_bytes=limits.max_request_bytes,
        max_text_bytes=limits.max_text_bytes,
        max_queue_ms=limits.max_queue_ms,
        version=metadata.version("crossbench"),
        startup=startup,
    )
    server = Server(services, limits, telemetry, info)
    server.precompute_tokens(known)
    return server


def server_maker(
    plan: CellPlan, model: ModelFolder, known: Sequence[tuple[str, str]] = ()
) -> Callable[..., Server]:
    """Return build_server() with these arguments, for another process or another machine.

    There the model may have to be fetched first, and its digest tells that it is the same.
    """
    _ = model.digest  # it is computed once, and travels with the model
    return partial(build_server, plan, model, known)


def _replica_maker(
    plan: CellPlan, pool: PoolSettings, threads: int
) -> Callable[[ModelFolder, int], Replica]:
    """Return a function that builds replica `number` of a model. Threads load one after another."""
    loading = threading.Lock()
    settings = plan.settings

    def make(model: ModelFolder, number: int) -> Replica:
        device = plan.devices[number % len(plan.devices)]
        deployment = Deployment(model, settings.quant, device, threads, settings.cache_dir)
        backend: Backend = plan.backend.build(deployment=deployment)
        if pool.kind == "process":
            return Replica(backend, ProcessEngine(backend), pool.idle_seconds)
        return Replica(backend, backend, pool.idle_seconds, loading)

    return make


def _load(
    plan: CellPlan,
    pool: PoolSettings,
    replicas: Mapping[str, Sequence[Replica]],
    telemetry: Telemetry,
) -> pb.Startup:
    """Load and warm up every replica if the pipeline runs the model; return what that took."""
    all_replicas = [replica for group in replicas.values() for replica in group]
    runs_model = plan.settings.pipeline is not Pipeline.TOKENIZE
    built_mb = 0.0
    if runs_model:
        backends = [group[0].backend for group in replicas.values()]
        built_mb = build_artifacts(backends, telemetry.usage)
    lengths = partial(typical_pair_lengths, min(plan.settings.batch, WARMUP_SEQUENCES))
    startup = load_and_warm(
        all_replicas if runs_model else [], telemetry, lengths, concurrently=pool.kind == "process"
    )
    startup.rss_load_peak_mb = max(startup.rss_load_peak_mb, built_mb)
    return startup


def _service(
    plan: CellPlan,
    pool_settings: PoolSettings,
    model: ModelFolder,
    replicas: Sequence[Replica],
    telemetry: Telemetry,
    tokenizing: Tokenizing,
) -> ModelService:
    """Build the tokenizer, scheduler and pool of one model with these replicas."""
    pipeline = plan.settings.pipeline
    callers = [replica for replica in replicas for _ in range(replica.callers)]
    scheduler = build_scheduler(plan.scheduler, replicas[0].backend.layout)
    pool = Pool(scheduler, callers, telemetry, pool_settings.routing, pool_settings.infer_timeout_s)
    tokenizer = PairTokenizer(model, pool_settings.cache_tokens)
    token_cache = TokenCache(tokenizer.encode) if pipeline is Pipeline.INFER else None
    return ModelService(
        model,
        replicas,
        tokenizer,
        activation_of(model),
        pool,
        tokenizing,
        pipeline is not Pipeline.TOKENIZE,
        token_cache,
    )


def build_reference(plan: CellPlan, model: ModelFolder) -> Server:
    """Return the server of the reference scores; see `CellPlan.reference`.

    Raises:
        ModelError: transformers cannot load the model.
    """
    return build_server(plan.reference(), model)


def build_scheduler(component: Component, layout: Layout) -> Scheduler:
    """Build a scheduler; `layout: auto` becomes the layout of the backend."""
    if component.values.get("layout") == "auto":
        component = component.replace(layout=layout)
    scheduler: Scheduler = component.build()
    return scheduler


def typical_pair_lengths(count: int, max_length: int) -> list[int]:
    """Return `count` pair lengths (tokens, special ones included) distributed as in MS MARCO."""
    probabilities = (np.arange(count) + 0.5) / count
    pairs = PASSAGES.inverse_cdf(probabilities) + round(QUERIES.mean) + 3
    return [int(length) for length in np.minimum(pairs, max_length)]
