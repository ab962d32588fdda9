"""The composition root: from a resolved config to the objects that serve and drive.

Everything else receives objects; only this file knows how the config's groups fit together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np
from hydra.utils import get_class

from crossbench.backends.base import Backend, Deployment, Layout
from crossbench.backends.devices import check_quant
from crossbench.config import CellSettings
from crossbench.errors import ConfigError
from crossbench.load.lengths import PASSAGES, QUERIES
from crossbench.measure.probes import rss_mb, usable_cores
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.pool import Pool, PoolSettings
from crossbench.serving.scheduler import Scheduler
from crossbench.serving.server import Server, ServerSettings
from crossbench.serving.service import ModelService
from crossbench.serving.telemetry import Telemetry

WARMUP_SEQUENCES = 32


def build(node: Mapping[str, Any], **extra: Any) -> Any:
    """Construct a group's `_target_` from its values, nested targets first, and `extra`.

    Not Hydra's `instantiate`, which would turn the dataclasses in `extra` into configs.

    Raises:
        CrossbenchError: what the class itself refused.
        ConfigError: the class does not take these values.
    """
    values = {
        key: build(value) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in node.items()
        if key != "_target_"
    }
    target = get_class(node["_target_"])
    try:
        return target(**values, **extra)
    except TypeError as error:
        raise ConfigError(f"{node['_target_']} does not take {values}: {error}") from error


def check_precision(config: Mapping[str, Any], settings: CellSettings) -> None:
    """Refuse a precision that the backend does not have, before anything is loaded.

    Raises:
        UnsupportedQuant: with the list of what the backend computes in.
    """
    backend: type[Backend] = get_class(config["backend"]["_target_"])
    check_quant(config["backend"]["name"], settings.quant, backend.supported)


def fetch_model(config: Mapping[str, Any], settings: CellSettings) -> ModelFolder:
    """The model's folder, made or downloaded where it is not there yet.

    Raises:
        ModelError: the model cannot be had or its folder is broken.
    """
    folder: ModelFolder = build(config["model"]).fetch(settings.cache_dir)
    return folder


def build_server(config: Mapping[str, Any], settings: CellSettings, model: ModelFolder) -> Server:
    """A server with its model loaded and warm, ready to start.

    Raises:
        BackendUnavailable, ModelError, ConfigError: see their docstrings.
    """
    telemetry = Telemetry()
    limits: ServerSettings = build(config["server"])
    pool_settings: PoolSettings = build(config["pool"])
    workers, threads = pool_settings.resolve(usable_cores())
    tokenizer = PairTokenizer(model)
    activation = activation_of(model.config)
    deployment = Deployment(model, settings.quant, settings.device, threads, settings.cache_dir)

    before_mb = rss_mb()
    loading_s = time.perf_counter()
    replicas = [build_backend(config, deployment) for _ in range(workers)]
    for replica in replicas:
        replica.load_model()
    loaded_s = time.perf_counter()
    after_mb = rss_mb()
    lengths = typical_pair_lengths(min(settings.batch, WARMUP_SEQUENCES), model.max_length)
    for replica in replicas:
        replica.warmup(lengths)
    compiled_s = time.perf_counter()

    callers = [replica for replica in replicas for _ in range(replica.workers)]
    scheduler = build_scheduler(config, replicas[0].layout)
    pool = Pool(scheduler, callers, telemetry, limits.max_queue_pairs)
    tokenizers = ThreadPoolExecutor(pool_settings.tokenizers, thread_name_prefix="tokenizer")
    service = ModelService(model, replicas, tokenizer, activation, pool, tokenizers)
    info = pb.ServerInfo(
        models=[_model_info(service)],
        scheduler=config["scheduler"]["name"],
        workers=len(callers),
        threads=threads,
        max_pairs=limits.max_pairs,
        max_queue_pairs=limits.max_queue_pairs,
        max_request_bytes=limits.max_request_bytes,
        version=metadata.version("crossbench"),
        startup=pb.Startup(
            load_s=loaded_s - loading_s,
            compile_s=compiled_s - loaded_s,
            rss_before_load_mb=before_mb,
            rss_after_load_mb=after_mb,
        ),
    )
    return Server({model.name: service}, limits, telemetry, info)


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


def _model_info(service: ModelService) -> pb.ModelInfo:
    model, backend = service.model, service.replicas[0]
    return pb.ModelInfo(
        name=model.name,
        backend=backend.name,
        quant=backend.deployment.quant.value,
        device=backend.device,
        architecture=model.architecture,
        max_length=model.max_length,
        digest=model.digest,
        caveat=model.caveat or "",
    )
