"""The composition root: from a resolved config to the objects that serve and drive.

Everything else receives objects; only this file knows how the config's groups fit together.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_class
from omegaconf import OmegaConf

from crossbench.backends.availability import refuse, support
from crossbench.backends.base import Backend, Deployment, Layout
from crossbench.config import CellSettings, check_groups, check_settings, conf_dir
from crossbench.errors import ConfigError
from crossbench.load.lengths import PASSAGES, QUERIES
from crossbench.measure.probes import usable_cores
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
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
from crossbench.types import Pipeline, Quant, Task

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


def check_values(config: Mapping[str, Any]) -> CellSettings:
    """Refuse values that can be used on no machine, before anything is started or loaded.

    What needs a model, a data set's files or a device is not asked.

    Raises:
        CrossbenchError: the first value that cannot be used, what was given and what to give.
    """
    settings = check_settings(config)
    check_groups(config)
    replica_devices(config["backend"].get("devices"), settings.device)
    load_task(config)
    build_scheduler(config, "padded")
    for group in ("model", "dataset", "pool", "server", "target", "quality"):
        if "_target_" in config[group]:  # a server that runs already is an address alone
            build(config[group])
    return settings


def check_support(config: Mapping[str, Any], settings: CellSettings) -> None:
    """Refuse a precision or device that the backend does not have, before anything is loaded.

    Raises:
        UnsupportedQuant, UnsupportedDevice: with the list of what the backend has.
    """
    backend: type[Backend] = get_class(config["backend"]["_target_"])
    quant = settings.quant
    refuse(config["backend"]["name"], support(backend.supported, quant, settings.device), quant)


def fetch_model(config: Mapping[str, Any], settings: CellSettings) -> ModelFolder:
    """The model's folder, made or downloaded where it is not there yet.

    Raises:
        ModelError: the model cannot be had or its folder is broken.
    """
    folder: ModelFolder = build(config["model"]).fetch(settings.cache_dir)
    return folder


def check_task(config: Mapping[str, Any], model: ModelFolder) -> Task:
    """What the load asks of the server, refused where the model does not do it.

    Raises:
        ConfigError: `load.task` is no task, or a cross-encoder is to embed.
    """
    task = load_task(config)
    if task is Task.EMBED and model.embedding is None:
        raise ConfigError(
            f"load.task=embed: {model.name} is a cross-encoder, which scores pairs and does not "
            "embed. Give load.task=score, or a sentence-transformer such as model=all-minilm-l6"
        )
    return task


def load_task(config: Mapping[str, Any]) -> Task:
    """What the load asks for.

    Raises:
        ConfigError: `load.task` is no task.
    """
    task = config["load"].get("task", Task.SCORE)
    if task not in set(Task):
        raise ConfigError(f"load.task must be one of {', '.join(Task)}, got {task!r}")
    return Task(task)


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
    config = {group: _choice(group, name) for group, name in choices.items()}
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


def further_models(chosen: Any, cache_dir: Path, first: str) -> list[ModelFolder]:
    """The folders of what `pool.models` names, to be served beside the model `first`.

    Raises:
        ConfigError: it is neither a list nor a mapping of models, or two have the same name.
        ModelError: a model cannot be had.
    """
    if isinstance(chosen, Mapping):
        named = {str(name): _model_node(model) for name, model in chosen.items()}
    elif chosen is None or (isinstance(chosen, Sequence) and not isinstance(chosen, str)):
        nodes = [_model_node(model) for model in chosen or ()]
        named = {}
        for node in nodes:
            name = str(node.get("name"))
            if name in named:
                raise ConfigError(
                    f"pool.models has {name} twice: give names of your own, for example "
                    f"pool.models={{first: {name}, second: {{base: {name}, max_length: 128}}}}"
                )
            named[name] = node
    else:
        raise ConfigError(
            f"pool.models must be a list of choices of conf/model or a mapping, got {chosen!r}: "
            "give for example pool.models=[minilm-l6]"
        )
    if first in named:
        raise ConfigError(
            f"pool.models has {first}, which this server has already as model={first}: give it a "
            f"name of your own, pool.models={{second: {first}}}"
        )
    return [
        dataclasses.replace(build(node).fetch(cache_dir), name=name) for name, node in named.items()
    ]


def _model_node(model: Any) -> dict[str, Any]:
    """A whole model node from a choice's name, `{base: choice, key: value}`, or a whole node."""
    if isinstance(model, Mapping) and "_target_" in model:
        return dict(model)
    changes = dict(model) if isinstance(model, Mapping) else {"base": model}
    choice = changes.pop("base", None)
    file = conf_dir() / "model" / f"{choice}.yaml"
    if not isinstance(choice, str) or not file.is_file():
        choices = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise ConfigError(
            f"pool.models: {model!r} is not a choice of conf/model: give one of {choices}, or "
            "{base: one of them, key: value}"
        )
    node = _choice("model", choice)
    if unknown := changes.keys() - node.keys():
        raise ConfigError(
            f"pool.models: model {choice} has no {', '.join(sorted(unknown))}: what it has is "
            f"{', '.join(str(key) for key in node if key != '_target_')}"
        )
    return {**node, **changes}


def _choice(group: str, name: str) -> dict[str, Any]:
    """A choice's values over those of the group's choices that its defaults list names."""
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=True)
    assert isinstance(node, dict)
    values: dict[str, Any] = {}
    for base in node.pop("defaults", ()):
        if isinstance(base, str):  # the others override other groups
            values |= _choice(group, base)
    return values | {str(key): value for key, value in node.items()}


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
