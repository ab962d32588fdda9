"""Plan a search for the best cell, with `hydra/sweeper=optuna`: check it before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf, read_write

from crossbench.errors import ConfigError
from crossbench.measure.catalogue import PAIRS_PER_S, QUALITY_FAMILY, RATES, throughput
from crossbench.quality.sample import NoCheck
from crossbench.runner.checks import check_config, check_start, longest_s
from crossbench.settings.blocks import check_resume, repeats_param, sweep_name
from crossbench.settings.composition_errors import parse_overrides
from crossbench.settings.overrides import check_points, check_study, study_axes, sweeper_params
from crossbench.settings.plan import CellPlan
from crossbench.settings.stored_plan import PlannedRun
from crossbench.sweeps.launchers import measures_elsewhere
from crossbench.sweeps.objective import Objective, read_objective
from crossbench.sweeps.plan import SweepPlan

_GRID = "GridSampler"


def plan_search(config: DictConfig) -> SweepPlan:
    """Return the plan of a search, whose cells are not known yet. Nothing is started.

    Each value that an axis may take is composed once, beside the first value of the other axes.

    Raises:
        ConfigError: there is no objective or no axis, a value of the sweeper cannot be used, or no
            cell has usable values.
    """
    given = [str(word) for word in config.hydra.overrides.task]
    check_study(config)
    check_resume(config)
    name = sweep_name(config)
    objective = read_search(config)
    repeats_param(config, {}, given)  # refuses blocks
    swept = sweeper_params(study_axes(config), given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # read by the sweeper that Hydra creates next
        if "seed" in config.hydra.sweeper.sampler:
            config.hydra.sweeper.sampler.seed = config.seed
    overrides = search_space(config, given)
    parsed = parse_overrides(overrides)
    points = _points(parsed)
    trials = int(min(config.hydra.sweeper.n_trials, _combinations(parsed)))
    plans: list[CellPlan] = []
    check_points(points, lambda cell: plans.append(check_config(cell)), given)
    if not measures_elsewhere(config.hydra.launcher):
        check_start(plans)
    _check_has_metric(objective, plans)
    return SweepPlan(
        overrides=overrides,
        points=points,
        cells=("",) * trials,
        runs=tuple(PlannedRun(number, None) for number in range(trials)),
        configs={},
        longest_s=trials * max(map(longest_s, plans)),
        name=name,
    )


def search_space(config: DictConfig, given: Sequence[str]) -> list[str]:
    """Return the axes of the study and the command line, as overrides.

    `interval(1,16)` draws whole numbers for a key whose value is one; Hydra's own is of floats.
    """
    params = config.hydra.sweeper.params or {}
    words = [*(f"{key}={value}" for key, value in params.items()), *given]
    return [
        f"{item.get_key_element()}=int({str(item.input_line).partition('=')[2]})"
        if isinstance(item.value(), IntervalSweep)
        and type(OmegaConf.select(config, item.key_or_group)) is int
        else word
        for word, item in zip(words, parse_overrides(words), strict=True)
    ]


def read_search(config: DictConfig) -> Objective:
    """Return the objective of a search, after checking the values of its sweeper.

    Raises:
        ConfigError: there is no objective, or a value of the sweeper cannot be used.
    """
    objective = read_objective(config)
    if objective is None:
        raise ConfigError(
            "hydra/sweeper=optuna needs an objective: give "
            f"objective={PAIRS_PER_S.name}, or another metric of docs/metrics.md"
        )
    sweeper = config.hydra.sweeper
    for key in ("n_trials", "n_jobs"):
        value = sweeper[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"hydra.sweeper.{key} must be a positive whole number, got {value!r}: give for "
                f"example hydra.sweeper.{key}=20"
            )
    if str(sweeper.sampler._target_).endswith(_GRID):
        raise ConfigError(
            "hydra/sweeper/sampler=grid measures every combination, which crossbench does without "
            "Optuna: leave out hydra/sweeper=optuna, or give hydra/sweeper/sampler=tpe"
        )
    return objective


def _points(parsed: Sequence[Override]) -> list[list[str]]:
    """Return points that have each value of each axis once; of an interval, its two ends."""
    axes = {item.get_key_element(): _values(item) for item in parsed if item.is_sweep_override()}
    if not axes:
        raise ConfigError(
            "a search needs values to choose from: give for example batch=8,16,32 or "
            "'concurrency=interval(1,16)'"
        )
    fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
    first = {key: values[0] for key, values in axes.items()}
    chosen = [first] + [
        {**first, key: value} for key, values in axes.items() for value in values[1:]
    ]
    return [[*fixed, *(f"{key}={value}" for key, value in point.items())] for point in chosen]


def _combinations(parsed: Sequence[Override]) -> float:
    """Return how many different cells there are: infinitely many if an axis has any float."""
    return math.prod(_count(item) for item in parsed if item.is_sweep_override())


def _count(axis: Override) -> float:
    interval = axis.value()
    if not isinstance(interval, IntervalSweep):
        return len(set(_values(axis)))
    if isinstance(interval.start, int) and isinstance(interval.end, int):
        return interval.end - interval.start + 1
    return math.inf


def _values(item: Override) -> list[str]:
    value = item.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return list(item.sweep_string_iterator())


def _check_has_metric(objective: Objective, plans: Sequence[CellPlan]) -> None:
    """Refuse an objective that no cell can have.

    Raises:
        ConfigError: the message has what to give.
    """
    name = objective.metric.name
    rates = {throughput(plan.task.unit).name for plan in plans}
    if objective.metric in RATES and name not in rates:
        raise ConfigError(
            f"objective={name}: no cell of this search has it: give objective={min(rates)}"
        )
    if objective.metric.family == QUALITY_FAMILY and all(
        isinstance(plan.quality.build(), NoCheck) for plan in plans
    ):
        raise ConfigError(
            f"objective={name} needs the check of the ranking: leave out quality=none"
        )
