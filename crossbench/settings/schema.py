"""The typed root schema of every composed config; each default stands in conf/config.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from crossbench.settings.places import outputs_dir

# The mark of a key that says how a cell is watched, stored or repeated, not what is measured
_NOT_IDENTITY = {"identity": False}


@dataclass
class RootSchema:
    """The root of every composed config. Types only: each default stands in conf/config.yaml.

    Counts are Any, because a wrong one must fail its own cell with our message, not the whole
    sweep. `identity.py` says what becomes of the marks.
    """

    model: Any = MISSING
    backend: Any = MISSING
    quant: Any = MISSING
    scheduler: Any = MISSING
    pool: Any = MISSING
    server: Any = MISSING
    target: Any = MISSING
    load: Any = MISSING
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
    predecessor: Any = field(default=MISSING, metadata=_NOT_IDENTITY)
    outputs_dir: str = field(default=MISSING, metadata=_NOT_IDENTITY)
    cache_dir: str = field(default=MISSING, metadata=_NOT_IDENTITY)


def register() -> None:
    """Make the schema and our resolvers known to Hydra; may be called again."""
    store = ConfigStore.instance()
    store.store(name="root_schema", node=RootSchema)
    # Hydra copies the whole store for each group that `--help` lists and for each config that it
    # composes, and only reads the copy
    store.__dict__["__deepcopy__"] = lambda _: store
    OmegaConf.register_new_resolver("crossbench.outputs", lambda: str(outputs_dir()), replace=True)
