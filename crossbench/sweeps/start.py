"""Start a run: check it, take its folder, start its tracker and dashboard."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.events import SweepStarted
from crossbench.runner.checks import check_config, check_start
from crossbench.settings.blocks import refuse_without_sweep
from crossbench.settings.overrides import check_study, swept_keys
from crossbench.settings.plan import composed_config
from crossbench.settings.run import run_settings
from crossbench.settings.stored_plan import StoredPlan
from crossbench.settings.sweep_state import (
    STATE_FILE,
    SweepState,
    read_state,
    save_state,
    sweep_title,
)
from crossbench.sweeps.child import waiting_child
from crossbench.sweeps.folder import TakenFolder, take_output_folder
from crossbench.sweeps.launchers import ONE_BY_ONE
from crossbench.sweeps.plan import SweepPlan
from crossbench.sweeps.resume import Resumed, resume
from crossbench.sweeps.resume_runs import resume_runs
from crossbench.sweeps.services import console, dashboard_url, make_tracking, sweep_journal
from crossbench.system.credentials import hide_argument
from crossbench.tracking.protocol import Tracker
from crossbench.wording import counted, duration


def start_cell(config: DictConfig) -> TakenFolder:
    """Check a single cell and take its folder, before Hydra creates it.

    Raises:
        CrossbenchError: the cell cannot be measured, or the folder cannot be used.
    """
    check_study(config)
    refuse_without_sweep(config)
    HydraConfig.instance().set_config(config)  # values may interpolate from it
    check_start([check_config(composed_config(config))])
    return take_output_folder(config, RunMode.RUN)


@dataclass(frozen=True, slots=True)
class Started:
    """A sweep that has started: its folder, its dashboard, and how many runs are to be measured."""

    taken: TakenFolder
    dashboard: Dashboard
    missing: int


def start_sweep(config: DictConfig, plan: SweepPlan) -> Started:
    """Take the folder of the sweep and store its plan, then start its dashboard and parent run.

    With `config.resume`, the folder, the plan and the parent run are those of that sweep.

    Raises:
        ConfigError: the folder cannot be used; nothing was started.
    """
    axes, resumed = swept_keys(plan.points), None
    if config.resume is not None:
        resumed = resume(config, plan, axes)
        taken, runs, missing = resumed.taken, len(resumed.plan.runs), resumed.missing
        console.tell(f"{counted(missing, 'cell')} of {runs} left to measure")
    else:
        taken = take_output_folder(config, RunMode.MULTIRUN)
        arguments = tuple(map(hide_argument, sys.argv[1:]))
        StoredPlan(arguments, str(Path.cwd()), plan.cells, plan.runs).save(taken.path)
        runs = missing = len(plan.runs)
    folder = taken.path
    if missing:
        console.tell(longest_time(missing, plan.longest_s * missing / len(plan.runs)))
    if missing and config.hydra.launcher._target_ == ONE_BY_ONE:
        waiting_child.start(folder)
    run = run_settings(config, list(config.hydra.overrides.task))
    tracking = make_tracking(run, folder)
    tracking.offline.unlink(missing_ok=True)  # of the run that is resumed
    dashboard: Dashboard = run.dashboard.build()
    if missing:
        dashboard.start(folder / JOURNAL_FILE)
    # Meanwhile the dashboard starts; `dashboard_url` waits until it is up, before the first cell
    title = sweep_title(plan.name, axes, folder.name)
    parent = tracking.attempt(lambda tracker: _parent_run(tracker, folder, title, plan, resumed))
    url = dashboard_url(dashboard) if missing else None
    save_state(SweepState(folder.name, runs, parent, os.getpid(), url, axes, title), folder)
    sweep_journal(folder, url).write(SweepStarted(folder.name, runs))
    return Started(taken, dashboard, missing)


def _parent_run(
    tracker: Tracker, folder: Path, title: str, plan: SweepPlan, resumed: Resumed | None
) -> str | None:
    tracker.end_lost_runs()
    if resumed is None:
        return tracker.start_sweep(folder.name, title, plan.overrides)
    known = read_state(folder).parent_run_id if (folder / STATE_FILE).exists() else None
    return resume_runs(folder, known, title, plan.overrides, resumed.kept, tracker)


def longest_time(cells: int, longest_s: float) -> str:
    """Say for how long the warm-ups and measurements of a sweep send requests, rounded up."""
    up_s = longest_s if longest_s < 90 else 60 * math.ceil(longest_s / 60)
    return (
        f"{counted(cells, 'cell')}: requests are sent for at most {duration(up_s)}; the last "
        "replies, loading, quality checks and reports come on top"
    )
