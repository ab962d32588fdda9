"""Compose plans and configs from the real conf/, like a command line does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from hydra import compose, initialize_config_dir

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.cell_settings import CellSettings
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import CellPlan, composed_config, make_plan
from crossbench.settings.schema import register


def config_of(*overrides: str) -> CellConfig:
    """Compose the config of these overrides."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return composed_config(compose("config", overrides=list(overrides)))


def plan_with(settings: CellSettings, config: CellConfig | None = None) -> CellPlan:
    """Return the default plan with these plain values."""
    plan = plan_of(cache_dir=settings.cache_dir)
    return dataclasses.replace(plan, settings=settings, config=config or plan.config)


def plan_of(*overrides: str, cache_dir: Path) -> CellPlan:
    """Return the plan of these overrides."""
    return make_plan(config_of(*overrides, f"cache_dir={cache_dir}"))


def with_nodes(config: CellConfig, **nodes: Mapping[str, object]) -> CellConfig:
    """Return the config with these root keys replaced."""
    return CellConfig({**config.document, **nodes})
