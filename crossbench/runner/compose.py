"""The composition root: from a resolved config to the objects that serve and drive.

Everything else receives objects; only this package knows how the config's groups fit together.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np

from crossbench.backends.base import Backend, Deployment, Layout
from crossbench.errors import ConfigError
from crossbench.load.lengths import PASSAGES, QUERIES
from crossbench.measure.probes import usable_cores
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.runner.build import build
from crossbench.runner.models import choice_values, further_models
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.info import model_info
from crossbench.serving.pool import Pool
from crossbench.serving.pool_settings import PoolSettings
from crossbench.serving.process_engine import ProcessEngine
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import Scheduler
from crossbench.serving.server import Server, ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.startup import derive, load_and_warm
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.token_memory import TokenMemory
from crossbench.settings.schema import CellSettings
from crossbench.types import Pipeline, Quant

WARMUP_SEQUENCES = 32


def build_server(
    config: Mapping[str, Any],
    settings: CellSettings,
    model: ModelFolder,
    known: Sequence[tuple[str, str]] = (),
) -> Server:
    """A server with `model` and those of `pool.models` loaded and warm, ready to start.

    With pipeline=infer it knows the tokens of the (query, passage) in `known` before they come.

    Raises:
        BackendUnavailable, ModelError, ConfigError: see their docstrings.
    """
    limits: ServerSettings = build(config["server"])
    pool_settings: PoolSettings = build(config["pool"])
    models = [model, *further_models(pool_settings.models, settings.cache_dir, model.name)]
    devices = replica_devices(config["backend"].get("devices"), settings.device)
    workers, threads = pool_settings.resolve(usable_cores(), len(models), len(devices))
    loading = threading.Lock()  # of replicas in this process: one after the other

    def make_replica(served: ModelFolder, number: int) -> Replica:
        device = devices[number % len(devices)]
        deployment = Deployment(served, settings.quant, device, threads, settings.cache_dir)
        backend = build_backend(config, deployment)
        if pool_settings.kind == "process":
            return Replica(backend, ProcessEngine(backend), pool_settings.idle_seconds)
        return Replica(backend, backend, pool_settings.idle_seconds, loading)

    replicas = {served.name: [make_replica(served, i) for i in range(workers)] for served in models}
    everyone = [replica for group in replicas.values() for replica in group]
    telemetry = Telemetry(lambda: [item.pid for item in everyone if item.pid is not None])
    pipeline = settings.pipeline
    runs_model = pipeline is not Pipeline.TOKENIZE
    concurrently = pool_settings.kind == "process"
    if runs_model:
        derive([group[0].backend for group in replicas.values()])
    lengths = partial(typical_pair_lengths, min(settings.batch, WARMUP_SEQUENCES))
    startup = load_and_warm(everyone if runs_model else [], telemetry, lengths, concurrently)

    tokenizers = ThreadPoolExecutor(pool_settings.tokenizers, thread_name_prefix="tokenizer")
    services = {}
    for served in models:
        group = replicas[served.name]
        callers = [replica for replica in group for _ in range(replica.callers)]
        scheduler = build_scheduler(config, group[0].backend.layout)
        pool = Pool(scheduler, callers, telemetry, limits.max_queue_pairs, pool_settings.routing)
        activation = activation_of(served)
        tokenizer = PairTokenizer(served, pool_settings.cache_tokens)
        memory = TokenMemory(tokenizer.encode) if pipeline is Pipeline.INFER else None
        services[served.name] = ModelService(
            served, group, tokenizer, activation, pool, tokenizers, runs_model, memory
        )
    info = pb.ServerInfo(
        models=[model_info(service, pipeline) for service in services.values()],
        scheduler=config["scheduler"]["name"],
        workers=sum(len(service.pool.workers) for service in services.values()),
        threads=threads,
        max_pairs=limits.max_pairs,
        max_queue_pairs=limits.max_queue_pairs,
        max_request_bytes=limits.max_request_bytes,
        version=metadata.version("crossbench"),
        startup=startup,
    )
    server = Server(services, limits, telemetry, info)
    server.learn(known)
    return server


def build_reference(settings: CellSettings, model: ModelFolder) -> Server:
    """What drift is measured from: transformers' own fp32 forward of `model` on the CPU.

    Behind a server as any other's, so that nothing but the forward can differ.

    Raises:
        ModelError: transformers cannot load the model.
    """
    choices = {"backend": "pytorch", "scheduler": "direct", "pool": "threads", "server": "cell"}
    config = {group: choice_values(group, name) for group, name in choices.items()}
    plain = dataclasses.replace(
        settings, quant=Quant.FP32, device="cpu", pipeline=Pipeline.FULL, batch=1
    )
    return build_server(config, plain, model)


def replica_devices(numbers: Any, device: str) -> list[str]:
    """Where replicas go, in turns: `backend.devices` names several GPUs, else `device` is all.

    Raises:
        ConfigError: they are no list of different numbers, or `device` asks for something else.
    """
    if numbers is None:
        return [device]
    good = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
    if not good or not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"backend.devices must be a list of different GPU numbers, got {numbers!r}: "
            "give for example backend.devices=[0,1], or null for device="
        )
    if device not in ("auto", "cuda"):
        raise ConfigError(
            f"device={device} and backend.devices={numbers} say different things: "
            "leave one of them out"
        )
    return [f"cuda:{number}" for number in numbers]


def typical_pair_lengths(count: int, max_length: int) -> list[int]:
    """Token lengths of `count` pairs as MS MARCO has them, special tokens included."""
    probabilities = (np.arange(count) + 0.5) / count
    pairs = PASSAGES.inverse_cdf(probabilities) + round(QUERIES.mean) + 3
    return [int(length) for length in np.minimum(pairs, max_length)]


def build_scheduler(config: Mapping[str, Any], layout: Layout) -> Scheduler:
    """A scheduler; one that counts cost by `layout: auto` counts as the backend computes."""
    node = dict(config["scheduler"])
    if node.get("layout") == "auto":
        node["layout"] = layout
    scheduler: Scheduler = build(node)
    return scheduler


def build_backend(config: Mapping[str, Any], deployment: Deployment) -> Backend:
    """A backend, not loaded yet."""
    backend: Backend = build(config["backend"], deployment=deployment)
    return backend
