"""Hydra's task: measure one cell, write its report and log its run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.markup import escape
from rich.text import Text

from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.events import RunEnded
from crossbench.report.cell import REPORT_FILE
from crossbench.report.cells import Run
from crossbench.report.sweep import read_run
from crossbench.report.terminal import terminal_answer, terminal_table
from crossbench.results import RunResult, cell_folders
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import composed_config
from crossbench.settings.run import RunSettings, run_settings
from crossbench.settings.sweep_state import SweepState, read_state
from crossbench.sweeps.cell import interrupted_result, run_cell
from crossbench.sweeps.child import waiting_child
from crossbench.sweeps.conduct import has_result
from crossbench.sweeps.finish import EXIT_FAILED
from crossbench.sweeps.folder import home_of, is_interrupted, mark_interrupted
from crossbench.sweeps.objective import read_objective
from crossbench.sweeps.open_cell import OpenCell
from crossbench.sweeps.progress import cell_progress
from crossbench.sweeps.services import (
    Tracking,
    console,
    dashboard_url,
    make_tracking,
    sweep_journal,
)
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.stop_signals import EXIT_INTERRUPTED, finish_first


def run_job(config: DictConfig) -> float | None:
    """Measure the composed cell, write its report and log its run.

    Returns the value of the `objective` for a sweeper that searches; the worst one for a cell that
    cannot be the best. None without an objective, and if the cell was not measured.

    Ctrl-C stops the cell and marks the sweep as interrupted. The remaining cells are then skipped,
    so that Hydra still reaches the end of the sweep and its report is written.
    """
    hydra = HydraConfig.get()
    # Relative paths start at the directory of the command, even with hydra.job.chdir=true
    os.chdir(hydra.runtime.cwd)
    folder = Path(hydra.runtime.output_dir)
    cell, run = composed_config(config), run_settings(config, list(hydra.overrides.task))
    if hydra.mode == RunMode.RUN:
        _run_single(cell, run, folder, home_of(folder))
        return None
    home = folder.parent
    if is_interrupted(home):
        waiting_child.close()
        shutil.rmtree(folder)  # Hydra created it; an empty folder would count as a failed cell
        return None
    if has_result(folder):  # the batch of a resumed sweep includes it
        return None
    objective = read_objective(config)
    tracking = make_tracking(run, home)
    try:
        result = measure_and_track(cell, folder, home, read_state(home), hydra.job.num, tracking)
    except KeyboardInterrupt:
        mark_interrupted(home)
        return None
    except OSError as error:  # if it were raised, Hydra would not call on_multirun_end
        unsaved_files.not_measured(folder, error)
        return None
    if objective is None:
        return None
    return objective.counted(result, [cell for cell in cell_folders(home) if cell != folder])


def _run_single(cell: CellConfig, run: RunSettings, folder: Path, home: Path) -> None:
    """Measure a single cell. The journal and the log of the dashboard go to `home`."""
    tracking = make_tracking(run, home)
    dashboard: Dashboard = run.dashboard.build()
    dashboard.start(home / JOURNAL_FILE)
    url = dashboard_url(dashboard)
    tracking.attempt(lambda tracker: tracker.end_lost_runs())
    state = SweepState(home.name, 1, None, os.getpid(), url, ())
    try:
        result = measure_and_track(cell, folder, home, state, 0, tracking)
    except KeyboardInterrupt:
        console.print(escape(f"interrupted; results so far: {folder}"))
        sys.exit(EXIT_INTERRUPTED)
    finally:
        ended = RunEnded(f"report: {folder / REPORT_FILE}", interrupted=is_interrupted(home))
        sweep_journal(home, url).write(ended)
        dashboard.close()
        is_lost = unsaved_files.tell_lost("the same command")
    console.print(Text(terminal_table([result])))
    if answer := terminal_answer([Run(folder.name, result, read_run(folder).records)]):
        console.print(Text(f"\n{answer}"))
    report = folder / REPORT_FILE
    console.print(escape(f"report: {report}" if report.is_file() else f"results: {folder}"))
    if is_lost or result.status.is_failure:
        sys.exit(EXIT_FAILED)


def measure_and_track(
    config: CellConfig,
    folder: Path,
    home: Path,
    state: SweepState,
    number: int,
    tracking: Tracking,
) -> RunResult:
    """Measure a cell, write its report and log its MLflow run; `home` is the folder of the run."""
    cell = OpenCell.start(config, folder, home, state, number, tracking)
    interrupted = False
    with cell_progress(cell.shown, config) as progress:
        try:
            result = run_cell(config, folder, progress, cell.journal)
        except KeyboardInterrupt:
            interrupted = True
            result = interrupted_result(config, folder)
        except OSError as error:
            cell.end_unmeasured(error)
            raise
        is_alone = state.pid == os.getpid()  # with another launcher, cells may overlap
        goes_on = is_alone and number + 1 < state.cells and not interrupted
        if goes_on:
            waiting_child.start(home)
        cell.end(result)
        try:
            with finish_first():
                progress.stage("writing the report")
                cell.close(result, last=not goes_on)
        except KeyboardInterrupt:
            interrupted = True
    if state.cells > 1 or result.error:
        cell.tell(result, 0 if interrupted else state.cells - number - 1)
    if interrupted:
        raise KeyboardInterrupt
    return result
