"""A cell's plan: its composed config, checked once and typed. Everything after it gets objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.cell_settings import CellSettings, check_settings, to_plain
from crossbench.settings.component import Component
from crossbench.settings.more_models import named_models
from crossbench.types import Pipeline, Quant, Task

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What one cell is to measure, and with what.

    `server` is None where a server that runs already is measured. `more_models` are served beside
    `model`, by the names that requests call them. `devices` are where replicas go, in turns.
    `config` is what the result will record.
    """

    config: CellConfig
    settings: CellSettings
    task: Task
    model: Component
    backend: Component
    scheduler: Component
    pool: Component
    server: Component | None
    target: Component
    load: Component
    dataset: Component
    quality: Component
    more_models: Mapping[str, Component]
    devices: tuple[str, ...]

    def reference(self) -> CellPlan:
        """The plan of what drift is measured from: transformers' fp32 forward of the same model.

        On the CPU, behind a server as any other's, so that nothing but the forward can differ.
        """
        settings = dataclasses.replace(
            self.settings, quant=Quant.FP32, device="cpu", pipeline=Pipeline.FULL, batch=1
        )
        return dataclasses.replace(
            self,
            settings=settings,
            backend=Component.choice("backend", "pytorch"),
            scheduler=Component.choice("scheduler", "direct"),
            pool=Component.choice("pool", "threads"),
            server=Component.choice("server", "cell"),
            devices=("cpu",),
            more_models={},
        )


def make_plan(config: CellConfig) -> CellPlan:
    """Check every value of a composed config that can be checked without a model or a device.

    Raises:
        ConfigError: the first value that cannot be used, what was given and what can be.
    """
    document = config.document
    settings = check_settings(document)
    groups = {
        key: Component.of(key, document.get(key))
        for key in ("model", "backend", "scheduler", "pool", "target", "load", "dataset", "quality")
    }
    runs_already = "_target_" not in document["server"]
    return CellPlan(
        config=config,
        settings=settings,
        task=_task(groups["load"]),
        server=None if runs_already else Component.of("server", document["server"]),
        more_models=named_models(groups["pool"].values.get("models")),
        devices=replica_devices(groups["backend"].values.get("devices"), settings.device),
        **groups,
    )


def composed_plan(config: DictConfig) -> CellPlan:
    """The plan of a config as Hydra composed it.

    Raises:
        ConfigError: see `make_plan`; or a value is missing or refers to nothing.
    """
    return make_plan(composed_config(config))


def composed_config(config: DictConfig) -> CellConfig:
    """A config as Hydra composed it, resolved; Hydra's own node is left out.

    Raises:
        ConfigError: a value is missing or refers to nothing.
    """
    keys = [str(key) for key in config if key != "hydra"]
    return CellConfig(to_plain(OmegaConf.masked_copy(config, keys)))


def save_config(config: CellConfig, folder: Path) -> None:
    """Write a cell's config into its folder, for the process that measures it."""
    OmegaConf.save(OmegaConf.create(dict(config.document)), folder / CONFIG_FILE)


def load_config(folder: Path) -> CellConfig:
    """Read what `save_config` wrote."""
    document = OmegaConf.to_container(OmegaConf.load(folder / CONFIG_FILE))
    assert isinstance(document, dict)
    return CellConfig({str(key): value for key, value in document.items()})


def replica_devices(numbers: Any, device: str) -> tuple[str, ...]:
    """Where replicas go, in turns: `backend.devices` names several GPUs, else `device` is all.

    Raises:
        ConfigError: they are no list of different numbers, or `device` asks for something else.
    """
    if numbers is None:
        return (device,)
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
    return tuple(f"cuda:{number}" for number in numbers)


def _task(load: Component) -> Task:
    task = load.values.get("task", Task.SCORE)
    if task not in set(Task):
        raise ConfigError(f"load.task must be one of {', '.join(Task)}, got {task!r}")
    return Task(task)
