"""Search for the best cell with Optuna, instead of measuring every combination."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from crossbench.results import cell_folders
from crossbench.settings.stored_plan import read_plan
from crossbench.sweeps.conduct import keep_going, save_multirun, shorten_plan
from crossbench.sweeps.folder import is_interrupted
from crossbench.sweeps.objective import Objective, is_safe_cell
from crossbench.sweeps.search_plan import read_search, search_space
from crossbench.sweeps.services import console
from crossbench.system.files import atomic_write
from crossbench.wording import counted

RESULTS_FILE = "optimization_results.yaml"  # as Hydra's own plugin for Optuna writes it
_PROPOSALS = 500  # in a row, before the search takes everything for known


Point = tuple[str, ...]  # the overrides of a cell


def search(
    config: DictConfig, launcher: Launcher, sampler: Any, arguments: Sequence[str]
) -> float | None:
    """Measure the cells that the sampler proposes, and return the best value of the objective.

    A combination that is proposed again is not measured again: its value is used. After Ctrl-C
    nothing more is launched. The best cell is printed, and written to `optimization_results.yaml`.
    """
    import optuna
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    optuna.logging.set_verbosity(logging.WARNING)
    folder, sweeper = Path(config.hydra.sweep.dir), config.hydra.sweeper
    save_multirun(config, folder)
    objective, plan = read_search(config), read_plan(folder)
    assert plan is not None  # `plan_search` has made it
    axes, fixed = create_params_from_overrides(search_space(config, arguments))
    study = optuna.create_study(
        storage=sweeper.storage,
        study_name=sweeper.study_name,
        sampler=sampler,
        direction=objective.direction,
        load_if_exists=True,
    )
    known: dict[Point, float | None] = {}
    counted_cells: list[Counted] = []
    while len(known) < len(plan.runs) and not is_interrupted(folder):
        first = len(known)
        proposed = []
        for _ in range(min(sweeper.n_jobs, len(plan.runs) - first)):
            if (new := _new_point(study, axes, fixed, known)) is None:
                break
            known[new[1]] = None
            proposed.append(new)
        if not proposed:
            console.print("the search ends early: the sampler proposes only what is known already")
            shorten_plan(plan, first, folder)
            break
        numbers = list(range(first, len(known)))
        with keep_going(numbers, folder):
            jobs = launcher.launch([point for _, point in proposed], initial_job_idx=first)
            for job, (_, point) in zip(jobs, proposed, strict=True):
                known[point] = job.return_value  # raises the exception of a failed job
        for number, (trial, point) in zip(numbers, proposed, strict=True):
            value = known[point]
            _answer(study, trial, value)
            if value is not None and math.isfinite(value):
                counted_cells.append(Counted(value, number, dict(trial.params)))
    return _tell(objective, best_cell(objective, counted_cells, folder), len(known), folder)


@dataclass(frozen=True, slots=True)
class Counted:
    """A cell with a value that counts: the value, its number from 0, and what was chosen for it."""

    value: float
    number: int
    params: dict[str, Any]


def best_cell(objective: Objective, cells: Sequence[Counted], folder: Path) -> Counted | None:
    """Return the best cell; None if no cell counts."""
    # An unverified lower precision has a value if it was measured before the first safe cell
    if any(map(is_safe_cell, cell_folders(folder))):
        cells = [cell for cell in cells if is_safe_cell(folder / str(cell.number))]
    choose = max if objective.maximize else min
    return choose(cells, key=lambda cell: cell.value, default=None)


def _new_point(
    study: Any,
    axes: Mapping[str, Any],
    fixed: Mapping[str, Any],
    known: Mapping[Point, float | None],
) -> tuple[Any, Point] | None:
    """Return a trial and its point, which is not known yet; None if the sampler finds none."""
    for _ in range(_PROPOSALS):
        trial = study.ask(dict(axes))
        point = tuple(f"{key}={value}" for key, value in {**fixed, **trial.params}.items())
        if point not in known:
            return trial, point
        _answer(study, trial, known[point])
    return None


def _answer(study: Any, trial: Any, value: float | None) -> None:
    """Tell the sampler the value of a trial; None if it was not measured."""
    import optuna

    if value is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, value)


def _tell(
    objective: Objective,
    best: Counted | None,
    cells: int,
    folder: Path,
) -> float | None:
    """Print the best cell and write it into the folder; return its value."""
    metric = objective.metric
    if best is None:
        console.print(f"[yellow]objective {metric.name}:[/] no cell has a value that counts")
        return None
    settings = " ".join(f"{key}={chosen}" for key, chosen in best.params.items())
    console.print(
        escape(
            f"objective {metric.name}: the best value of {counted(cells, 'cell')} is "
            f"{metric.text(best.value)} {metric.unit} in cell {best.number + 1} ({settings}); the "
            "report says which cells it can be told from, and what became of the ranking"
        )
    )
    document = {"name": "optuna", "best_params": best.params, "best_value": best.value}
    with atomic_write(folder / RESULTS_FILE) as partial:
        partial.write_text(OmegaConf.to_yaml(OmegaConf.create(document)), "utf-8")
    return best.value
