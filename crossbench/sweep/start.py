"""Start a run: check it, take its folder, start its tracker and dashboard."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.events import SweepStarted
from crossbench.runner.checks import check_config
from crossbench.settings.blocks import refuse_without_sweep
from crossbench.settings.flatten import without_credentials
from crossbench.settings.overrides import check_study, swept_keys
from crossbench.settings.plan import composed_config
from crossbench.settings.run import run_settings
from crossbench.settings.stored_plan import StoredPlan
from crossbench.sweep.child import waiting_child
from crossbench.sweep.conduct import ONE_BY_ONE
from crossbench.sweep.folder import SweepState, TakenFolder, save_state, take_output_folder
from crossbench.sweep.plan import SweepPlan
from crossbench.sweep.services import console, dashboard_url, make_tracking, sweep_journal
from crossbench.wording import counted, duration


def start_cell(config: DictConfig) -> TakenFolder:
    """Check a single cell and take its folder, before Hydra creates it.

    Raises:
        CrossbenchError: the cell cannot be measured, or the folder cannot be used.
    """
    check_study(config)
    refuse_without_sweep(config)
    HydraConfig.instance().set_config(config)  # values may interpolate from it
    check_config(composed_config(config))
    return take_output_folder(config, RunMode.RUN)


def start_sweep(config: DictConfig, plan: SweepPlan) -> tuple[TakenFolder, Dashboard]:
    """Take the folder of the sweep, then start its dashboard and its parent run.

    Raises:
        ConfigError: the folder cannot be used; nothing was started.
    """
    taken = take_output_folder(config, RunMode.MULTIRUN)
    folder = taken.path
    arguments = tuple(without_credentials(argument) for argument in sys.argv[1:])
    StoredPlan(arguments, str(Path.cwd()), plan.cells, plan.runs).save(folder)
    console.print(longest_time(len(plan.points), plan.longest_s))
    if config.hydra.launcher._target_ == ONE_BY_ONE:
        waiting_child.start(folder)
    run = run_settings(config, list(config.hydra.overrides.task))
    tracking = make_tracking(run, folder)
    dashboard: Dashboard = run.dashboard.build()
    dashboard.start(folder / JOURNAL_FILE)
    # Meanwhile the dashboard starts; `dashboard_url` waits until it is up, before the first cell
    parent = tracking.attempt(lambda tracker: tracker.start_sweep(folder.name, plan.overrides))
    url = dashboard_url(dashboard)
    state = SweepState(
        folder.name, len(plan.points), parent, os.getpid(), url, swept_keys(plan.points)
    )
    save_state(state, folder)
    sweep_journal(folder, url).write(SweepStarted(folder.name, len(plan.points)))
    return taken, dashboard


def longest_time(cells: int, longest_s: float) -> str:
    """Say for how long the warm-ups and measurements of a sweep send requests, rounded up."""
    up_s = longest_s if longest_s < 90 else 60 * math.ceil(longest_s / 60)
    return (
        f"{counted(cells, 'cell')}: requests are sent for at most {duration(up_s)}; loading, "
        "quality checks and reports come on top"
    )
