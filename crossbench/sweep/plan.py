"""Plan a sweep: its cells, checked before the first one runs, and how long they take at most."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, read_write

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.overrides import check_points, check_study, sweep_points, sweeper_params


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A sweep before it starts.

    `overrides` are those of the sweep, the axes of its study included, and `points` those of each
    cell. The warm-ups and measurements of all cells take at most `longest_s` one after the other.
    """

    overrides: list[str]
    points: list[list[str]]
    longest_s: float


def plan_sweep(config: DictConfig) -> SweepPlan:
    """Return the plan of a sweep. Every cell is composed once, and nothing is started.

    Raises:
        ConfigError: a cell does not compose, no cell has usable values, or two cells are the same.
    """
    given = list(config.hydra.overrides.task)
    check_study(config)
    params = {str(key): str(value) for key, value in (config.hydra.sweeper.params or {}).items()}
    swept = sweeper_params(params, given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # read by the sweeper that Hydra creates next
    overrides = [*(f"{key}={value}" for key, value in swept.items()), *given]
    points = sweep_points(overrides)
    cells_s: list[float] = []
    check_points(points, lambda cell: cells_s.append(_checked_s(cell)), given, params)
    return SweepPlan(overrides, points, sum(cells_s))


def _checked_s(config: CellConfig) -> float:
    """Check the values of a cell; return the seconds that it takes at most (see `longest_s`)."""
    from crossbench.runner.checks import check_config, longest_s

    return longest_s(check_config(config))
