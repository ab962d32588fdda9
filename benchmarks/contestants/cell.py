"""Build the parts of a cell from crossbench overrides, for crossbench's own contestants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra import compose, initialize_config_dir

from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.runner.checks import check_support
from crossbench.runner.models import fetch_model
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import CellPlan, composed_plan
from crossbench.settings.schema import register
from crossbench.types import QueryPassages


@dataclass(frozen=True)
class Cell:
    plan: CellPlan
    model: ModelFolder
    lists: Sequence[QueryPassages]


def plan_of(overrides: Sequence[str]) -> CellPlan:
    """Return the plan of a cell, without its model and texts."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return composed_plan(compose("config", overrides=list(overrides)))


def open_cell(overrides: Sequence[str]) -> Cell:
    plan = plan_of(overrides)
    check_support(plan)
    model = fetch_model(plan)
    lists = plan.dataset.build().load(PairTokenizer(model), plan.settings.seed).lists
    return Cell(plan, model, lists)
