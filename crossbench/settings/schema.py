"""The typed root schema of every composed config. The defaults are in conf/config.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from crossbench.settings.choices import groups_text, values_text
from crossbench.settings.places import conf_dir, outputs_dir

# Marks keys that say how a cell is watched, stored or repeated, not what it measures
_NOT_IDENTITY = {"identity": False}
# Marks keys that say how the whole sweep runs: they are no part of the config of a cell
_OF_SWEEP = {"identity": False, "of_sweep": True}


@dataclass
class RootSchema:
    """The root of every composed config: only types, the defaults are in conf/config.yaml.

    Counts are Any: a wrong one then fails only its own cell, with our error message, instead of
    the whole sweep. `identity.py` uses the marks.
    """

    model: Any = MISSING
    backend: Any = MISSING
    quant: Any = MISSING
    scheduler: Any = MISSING
    pool: Any = MISSING
    server: Any = MISSING
    target: Any = MISSING
    load: Any = MISSING
    stop: Any = MISSING
    dataset: Any = MISSING
    tracker: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    dashboard: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    quality: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    batch: Any = MISSING
    concurrency: Any = MISSING
    requests: Any = MISSING
    max_seconds: Any = MISSING
    warmup_requests: Any = MISSING
    warmup_max_seconds: Any = MISSING
    repeat: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    pipeline: Any = MISSING
    device: str = MISSING
    seed: int = MISSING
    study: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    report: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    baseline: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    cost: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    predecessor: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    until_decided: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    max_repeats: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    cell_timeout_s: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    loading_timeout_s: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    outputs_dir: str = field(default=MISSING, metadata=_NOT_IDENTITY)
    cache_dir: str = field(default=MISSING, metadata=_NOT_IDENTITY)
    sweep_name: Any = field(default=MISSING, metadata=_OF_SWEEP)
    repeats: Any = field(default=MISSING, metadata=_OF_SWEEP)
    objective: Any = field(default=MISSING, metadata=_OF_SWEEP)
    retries: Any = field(default=MISSING, metadata=_OF_SWEEP)
    resume: Any = field(default=MISSING, metadata=_OF_SWEEP)
    allow_shared: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    cluster: Any = field(default=MISSING, metadata=_OF_SWEEP)


OF_SWEEP = frozenset(item.name for item in fields(RootSchema) if item.metadata.get("of_sweep"))


def register() -> None:
    """Register the schema and our resolvers with Hydra; more than one call is harmless."""
    store = ConfigStore.instance()
    store.store(name="root_schema", node=RootSchema)
    # Hydra deep-copies the whole store for each group in `--help` and each composed config, only to
    # read it: returning the store itself saves that time
    store.__dict__["__deepcopy__"] = lambda _: store
    resolvers = {
        "outputs": lambda: str(outputs_dir()),
        "groups": groups_text,
        "values": values_text,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"crossbench.{name}", resolver, replace=True)


def register_plugins() -> None:
    """Register our configs of Hydra's plugins in place of the plugins' own.

    These are conf/hydra/optuna.yaml as `hydra/sweeper=optuna`, and the files of
    conf/hydra/launchers as choices of `hydra/launcher`. A file in conf/hydra/sweeper or
    conf/hydra/launcher would not do: Hydra refuses one with a plugin's name.
    """
    Plugins.instance()  # a plugin registers its own config when it is found
    store, folder = ConfigStore.instance(), conf_dir() / "hydra"
    store.store(group="hydra/sweeper", name="optuna", node=OmegaConf.load(folder / "optuna.yaml"))
    for path in (folder / "launchers").glob("*.yaml"):
        store.store(group="hydra/launcher", name=path.stem, node=OmegaConf.load(path))
