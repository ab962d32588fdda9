"""Plan a sweep: its cells, checked before the first one runs, and how long they take at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig, read_write

from crossbench.errors import ConfigError
from crossbench.settings.baseline import check_own_baseline
from crossbench.settings.blocks import (
    SWEEPER,
    Grid,
    check_resume,
    refuse_objective,
    repeats_param,
    sweep_name,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.overrides import (
    check_points,
    check_study,
    study_axes,
    sweep_points,
    sweeper_params,
)
from crossbench.settings.plan import CellPlan
from crossbench.settings.stored_plan import PlannedRun
from crossbench.sweeps.launchers import measures_elsewhere
from crossbench.sweeps.order import block_order


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A sweep before it starts.

    `overrides` are those of the sweep, the axes of its study included, and `points` those of each
    run, as Hydra's product orders them. `cells` are the ids of the cells, and `runs` the runs in
    the order of running. `configs` has the cells that can be measured, by their ids. The warm-ups
    and measurements of all runs take at most `longest_s` one after the other. `name` is the name
    that was given to the sweep.
    """

    overrides: list[str]
    points: list[list[str]]
    cells: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    configs: Mapping[str, CellConfig]
    longest_s: float
    name: str | None


def plan_sweep(config: DictConfig) -> SweepPlan:
    """Return the plan of a sweep. Every run is composed once, and nothing is started.

    Raises:
        ConfigError: a cell does not compose, no cell has usable values, two cells are the same,
            the blocks are not clear, or the baseline is not a cell.
    """
    given = list(config.hydra.overrides.task)
    check_study(config)
    check_resume(config)
    name = sweep_name(config)
    refuse_objective(config)
    params = study_axes(config)
    swept = repeats_param(config, params, given) | sweeper_params(params, given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # read by the sweeper that Hydra creates next
    overrides = [*(f"{key}={value}" for key, value in swept.items()), *given]
    points = sweep_points(overrides)
    from crossbench.runner.checks import check_config, check_start, longest_s

    plans: list[CellPlan] = []
    ids = check_points(points, lambda cell: plans.append(check_config(cell)), given, params)
    cells = [plan.config for plan in plans]
    if config.resume is None and not measures_elsewhere(config.hydra.launcher):
        check_start(plans)
    check_own_baseline(cells)
    grid = Grid.of(points)
    if config.until_decided and len(grid.cells) < 2:
        raise ConfigError(
            "until_decided=true compares cells with a baseline, but this sweep has a single cell: "
            "give several values of an axis, or repeats=6 instead"
        )
    shuffled = len(grid.blocks) > 1 and config.hydra.sweeper._target_ == SWEEPER
    runs = [
        PlannedRun(cell, block)
        for index, block in enumerate(grid.blocks)
        for cell in cells_of_block(len(grid.cells), index, config.seed if shuffled else None)
    ]
    configs = {cell.cell_id: cell for cell in cells}
    return SweepPlan(
        overrides,
        points,
        tuple(ids[: len(grid.cells)]),
        tuple(runs),
        configs,
        sum(map(longest_s, plans)),
        name,
    )


def cells_of_block(cells: int, index: int, seed: int | None) -> list[int]:
    """Return the indices of the cells of a block in the order of running.

    A sweep with a single block has no `seed`: its cells run in the order of the command line.
    """
    return list(range(cells)) if seed is None else block_order(cells, index, seed)
