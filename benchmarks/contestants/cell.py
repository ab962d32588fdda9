"""A cell's parts from crossbench's own overrides, for the contestants that are ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir

from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.runner.build import build
from crossbench.runner.checks import check_support
from crossbench.runner.models import fetch_model
from crossbench.settings.places import conf_dir
from crossbench.settings.schema import CellSettings, check_settings, register, to_plain
from crossbench.types import QueryPassages


@dataclass(frozen=True)
class Cell:
    config: dict[str, Any]
    settings: CellSettings
    model: ModelFolder
    lists: Sequence[QueryPassages]


def open_cell(overrides: Sequence[str]) -> Cell:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_plain(compose("config", overrides=list(overrides)))
    settings = check_settings(config)
    check_support(config, settings)
    model = fetch_model(config, settings)
    lists = build(config["dataset"]).load(PairTokenizer(model), settings.seed).lists
    return Cell(config, settings, model, lists)
