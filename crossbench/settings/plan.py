"""The plan of a cell: its composed config, checked once and typed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.cell_settings import CellSettings, check_settings, to_plain
from crossbench.settings.component import Component, choice_values
from crossbench.settings.more_models import named_models
from crossbench.settings.schema import OF_SWEEP
from crossbench.system.credentials import hide_config
from crossbench.system.files import write_file
from crossbench.types import Pipeline, Quant, Task

CONFIG_FILE = "config.yaml"
SECRETS_FILE = ".secrets"  # without a suffix, it is no artifact of MLflow
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
# Root keys that describe a server of crossbench; `model` stays, as the reference needs it
OF_OUR_SERVER = frozenset({"backend", "quant", "device", "scheduler", "pool", "server"})
_OF_REFERENCE = {"backend": "pytorch", "scheduler": "direct", "pool": "threads"}
_GROUPS = (
    "model", "backend", "scheduler", "pool", "target", "load", "stop", "dataset", "quality",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CellPlan:
    """Everything that one cell measures, as checked and typed values.

    `server` is None if the cell measures a server that is already running. If that is not
    crossbench's own (`of_others`), `backend`, `scheduler`, `pool`, precision and device are those
    of the reference, the only server that crossbench then builds. `more_models` are served in
    addition to `model`, by the names that requests use. Replicas are assigned to `devices` in turn.
    `config` is stored in the result.
    """

    config: CellConfig
    settings: CellSettings
    task: Task
    model: Component
    backend: Component
    scheduler: Component
    pool: Component
    server: Component | None
    of_others: bool
    target: Component
    load: Component
    stop: Component
    dataset: Component
    quality: Component
    more_models: Mapping[str, Component]
    devices: tuple[str, ...]

    def reference(self) -> CellPlan:
        """Return the plan of the reference: transformers' fp32 forward of the model on the CPU.

        It is served like any other cell, so that only the forward can differ.
        """
        settings = dataclasses.replace(
            self.settings, quant=Quant.FP32, device="cpu", pipeline=Pipeline.FULL, batch=1
        )
        return dataclasses.replace(
            self,
            settings=settings,
            backend=Component.choice("backend", _OF_REFERENCE["backend"]),
            scheduler=Component.choice("scheduler", _OF_REFERENCE["scheduler"]),
            pool=Component.choice("pool", _OF_REFERENCE["pool"]),
            server=Component.choice("server", "cell"),
            devices=("cpu",),
            more_models={},
        )


def make_plan(config: CellConfig) -> CellPlan:
    """Check the values of a composed config, as far as this needs no model and no device.

    Raises:
        ConfigError: a value cannot be used; the message has the first such value and what to give.
    """
    document = config.document
    of_others = is_of_others(document)
    if of_others:  # what is not known of the server is not in its config
        document = {
            **{key: choice_values(key, name) for key, name in _OF_REFERENCE.items()},
            "quant": {"name": Quant.FP32},
            "device": "cpu",
            "server": {},
            **document,
        }
    settings = check_settings(document)
    groups = {key: Component.of(key, document.get(key)) for key in _GROUPS}
    starts_server = not of_others and "access" not in groups["target"].values
    if starts_server and "_target_" not in document["server"]:
        raise ConfigError(
            f"target={groups['target'].name} starts a server, but server="
            f"{document['server'].get('name')} is one that runs already: leave server out, or give "
            "target=remote"
        )
    return CellPlan(
        config=config,
        settings=settings,
        task=_task(groups["load"]),
        server=Component.of("server", document["server"]) if starts_server else None,
        of_others=of_others,
        more_models=named_models(groups["pool"].values.get("models")),
        devices=replica_devices(groups["backend"].values.get("devices"), settings.device),
        **groups,
    )


def composed_plan(config: DictConfig) -> CellPlan:
    """Return the plan of a config composed by Hydra.

    Raises:
        ConfigError: see `composed_config` and `make_plan`.
    """
    return make_plan(composed_config(config))


def composed_config(config: DictConfig) -> CellConfig:
    """Resolve a config composed by Hydra, without Hydra's own node and the keys of the sweep.

    If the server is not crossbench's own, its config has no settings of a server of crossbench.

    Raises:
        ConfigError: a value is missing or refers to a key that does not exist.
    """
    others = is_of_others(config)
    left_out = {"hydra", *OF_SWEEP, *(OF_OUR_SERVER if others else ())}
    keys = [str(key) for key in config if key not in left_out]
    plain = to_plain(OmegaConf.masked_copy(config, keys))
    if others and plain["target"].get("name") is None:
        plain["target"]["name"] = plain["target"]["api"]
    return CellConfig(plain)


def is_of_others(config: Mapping[Any, Any]) -> bool:
    """Return whether the target of a config is a server of other people: it then has an `api`."""
    target = config.get("target")
    return isinstance(target, Mapping | DictConfig) and "api" in target


def save_config(config: CellConfig, folder: Path) -> None:
    """Write the config of a cell into its folder, for the cell process; without credentials.

    Those that the cell process needs, not the tracker's, go to a file that only this user can read.
    `load_config` deletes it.
    """
    hidden = hide_config(config.document)
    text = OmegaConf.to_yaml(OmegaConf.create(hidden))
    write_file(folder / CONFIG_FILE, text.encode())
    measured = config.comparable.document
    if secret := {key: node for key, node in measured.items() if node != hidden[key]}:
        drop_secrets(folder)
        descriptor = os.open(folder / SECRETS_FILE, _NEW_FILE, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(secret, file)
        except OSError:  # half of it would be read as no JSON
            drop_secrets(folder)
            raise


def load_config(folder: Path) -> CellConfig:
    """Read the config that `save_config` wrote."""
    document = OmegaConf.to_container(OmegaConf.load(folder / CONFIG_FILE))
    assert isinstance(document, dict)
    with contextlib.suppress(FileNotFoundError):
        document |= json.loads((folder / SECRETS_FILE).read_text("utf-8"))
    drop_secrets(folder)
    return CellConfig({str(key): value for key, value in document.items()})


def drop_secrets(folder: Path) -> None:
    """Delete the file of credentials, which a cell process that failed early has not read."""
    (folder / SECRETS_FILE).unlink(missing_ok=True)


def replica_devices(numbers: Any, device: str) -> tuple[str, ...]:
    """Return the devices of the replicas: the GPUs of `backend.devices`, or `device` if it is null.

    Raises:
        ConfigError: `numbers` is not a list of different GPU numbers, or contradicts `device`.
    """
    if numbers is None:
        return (device,)
    good = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
    if not good or not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"backend.devices must be a list of different GPU numbers, got {numbers!r}: "
            "give for example backend.devices=[0,1], or null to use device="
        )
    if device not in ("auto", "cuda"):
        raise ConfigError(
            f"device={device} and backend.devices={numbers} contradict each other: "
            "leave one of them out"
        )
    return tuple(f"cuda:{number}" for number in numbers)


def _task(load: Component) -> Task:
    task = load.values.get("task", Task.SCORE)
    if task not in set(Task):
        raise ConfigError(f"load.task must be one of {', '.join(Task)}, got {task!r}")
    return Task(task)
