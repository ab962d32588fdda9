"""What spans cells: the sweep's folder, its MLflow parent run, the order of its end.

State lives in `<sweep>/sweep.json`, so that every launcher's process finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from crossbench.cell import run_cell
from crossbench.command import denied
from crossbench.compose import check_values
from crossbench.composition_errors import explain
from crossbench.config import to_plain
from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.errors import CrossbenchError
from crossbench.overrides import check_points, check_study, sweep_points, sweeper_params, swept_keys
from crossbench.progress import cell_progress
from crossbench.report.axes import full_label
from crossbench.report.cell import REPORT_FILE, write_cell_report
from crossbench.report.sweep import read_runs, terminal_table, write_sweep_report
from crossbench.results import RunResult, load_result
from crossbench.services import (
    Tracking,
    console,
    dashboard_url,
    make_dashboard,
    make_tracking,
    picture_of_dashboard,
    sweep_journal,
)
from crossbench.sweep_folder import (
    INTERRUPTED_FILE,
    STATE_FILE,
    SweepState,
    TakenFolder,
    home_of,
    place_of,
    read_state,
    take_output_folder,
)
from crossbench.tracking import Place
from crossbench.wording import counted

DASHBOARD_FIGURES = (
    "throughput/pairs_per_s", "throughput/texts_per_s", "latency/p50_ms", "latency/p95_ms",
    "memory/rss_peak_mb",
)  # fmt: skip
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class SweepCallback(Callback):
    """Hydra's hooks around a run, of several cells or of one.

    Each holds its folder until this process ends.
    """

    def __init__(self) -> None:
        self._dashboard: Dashboard | None = None
        self._taken: TakenFolder | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A launcher copies the hooks to other processes, which neither hold nor end anything."""
        return {"_dashboard": None, "_taken": None}

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            self._taken = start_cell(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            self._taken, self._dashboard = start_sweep(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            folder = Path(config.hydra.sweep.dir)
            status = finish_sweep(folder, _tracking(config, folder))
        if self._dashboard is not None:
            self._dashboard.close()
        if status:
            sys.exit(status)


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """Hydra turns a hook's exception into a warning and goes on; what must stop it is an exit."""
    try:
        yield
    except CrossbenchError as error:
        sys.exit(f"crossbench: {error}")
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"crossbench: {explain(error)}")
    except OSError as error:
        sys.exit(f"crossbench: {denied(error)}")
    except Exception:
        console.print_exception()
        sys.exit(EXIT_FAILED)


def start_cell(config: DictConfig) -> TakenFolder:
    """Check a lone cell and take its folder, before Hydra makes it.

    Raises:
        CrossbenchError: the cell cannot be measured, or the folder cannot be had.
    """
    check_study(config)
    HydraConfig.instance().set_config(config)  # for what the cell's values take from it
    check_values(
        to_plain(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    )
    return take_output_folder(config, RunMode.RUN)


def start_sweep(config: DictConfig) -> tuple[TakenFolder, Dashboard]:
    """Compose every cell once, take the sweep's folder, open its parent run and its dashboard.

    Raises:
        ConfigError: a cell does not compose, no cell has values that can be used, two cells are
            the same, or the folder cannot be had; nothing was started.
    """
    given = list(config.hydra.overrides.task)
    check_study(config)
    params = {str(key): str(value) for key, value in (config.hydra.sweeper.params or {}).items()}
    swept = sweeper_params(params, given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # the sweeper that Hydra makes next reads it here
    overrides = [*(f"{key}={value}" for key, value in swept.items()), *given]
    points = sweep_points(overrides)
    check_points(points, check_values, given, params)
    taken = take_output_folder(config, RunMode.MULTIRUN)
    folder = taken.path
    tracking = _tracking(config, folder)
    dashboard = make_dashboard(config)
    dashboard.start(folder / JOURNAL_FILE)
    # While it comes up; it is up before the first cell starts
    parent = tracking.attempt(lambda tracker: tracker.start_sweep(folder.name, overrides))
    url = dashboard_url(dashboard)
    state = SweepState(folder.name, len(points), parent, os.getpid(), url, swept_keys(points))
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)) + "\n", "utf-8")
    journal = sweep_journal(folder, url)
    journal.write({"event": "sweep", "name": folder.name, "cells": len(points)})
    return taken, dashboard


def run_job(config: DictConfig) -> None:
    """Hydra's task: measure the composed cell, track it, report it.

    Ctrl-C ends the cell in order and marks the sweep, whose remaining cells are then left out, so
    that Hydra comes to the sweep's end and its report is written.
    """
    hydra = HydraConfig.get()
    # With hydra.job.chdir=true too, a relative path is meant from where the command was typed
    os.chdir(hydra.runtime.cwd)
    folder = Path(hydra.runtime.output_dir)
    plain = to_plain(config)
    overrides = list(hydra.overrides.task)
    if hydra.mode == RunMode.RUN:
        home = home_of(folder)
        _run_single(config, plain, folder, home, make_tracking(config, home, overrides))
        return
    home = folder.parent
    if (home / INTERRUPTED_FILE).exists():
        shutil.rmtree(folder)  # Hydra has made it, and a cell that was left out is no failed one
        return
    tracking = make_tracking(config, home, overrides)
    try:
        measure_and_track(plain, folder, home, read_state(home), hydra.job.num, tracking)
    except KeyboardInterrupt:
        (home / INTERRUPTED_FILE).touch()
    except OSError as error:  # raised on, it would take the sweep's end with it
        console.print(f"[yellow]cell {hydra.job.num + 1}:[/] {escape(denied(error))}")


def _tracking(config: DictConfig, folder: Path) -> Tracking:
    return make_tracking(config, folder, list(config.hydra.overrides.task))


def _run_single(
    config: DictConfig, plain: Mapping[str, Any], folder: Path, home: Path, tracking: Tracking
) -> None:
    """`home` takes what is of no cell: the journal, and the dashboard's log."""
    dashboard = make_dashboard(config)
    dashboard.start(home / JOURNAL_FILE)
    url = dashboard_url(dashboard)
    state = SweepState(home.name, 1, None, os.getpid(), url, ())
    try:
        result = measure_and_track(plain, folder, home, state, 0, tracking)
    except KeyboardInterrupt:
        console.print(escape(f"interrupted; what there is lies in {folder}"))
        sys.exit(EXIT_INTERRUPTED)
    finally:
        sweep_journal(home, url).write(
            {"event": "end", "words": f"ended; report: {folder / 'report.md'}"}
        )
        dashboard.close()
    console.print(terminal_table([result]))
    report = folder / REPORT_FILE
    console.print(escape(f"report: {report}" if report.is_file() else f"results: {folder}"))
    if result.status.is_failure:
        sys.exit(EXIT_FAILED)


def measure_and_track(
    config: Mapping[str, Any],
    folder: Path,
    home: Path,
    state: SweepState,
    number: int,
    tracking: Tracking,
) -> RunResult:
    """One cell from its config to its report and its MLflow run; `home` is its run's folder."""
    label = full_label(config, state.axes)
    place = f"cell {number + 1}/{state.cells}"
    where = Place(*place_of(folder))
    run_id = tracking.attempt(lambda tracker: tracker.start_cell(label, state.parent_run_id, where))
    journal = sweep_journal(home, state.dashboard_url, cell=number)
    journal.write({"event": "cell", "label": label, "config": config})
    interrupted = False
    with cell_progress(f"{place} {label}", config) as progress:
        try:
            result = run_cell(config, folder, progress, journal)
        except KeyboardInterrupt:
            interrupted = True
            result = load_result(folder)
        journal.write(
            {
                "event": "result",
                "status": result.status,
                "error": result.error,
                "metrics": {key: result.metrics.get(key) for key in DASHBOARD_FIGURES},
            }
        )
        progress.stage("writing the report")
        try:
            write_cell_report(folder)
        except OSError as error:  # the result is safe, and the other cells still run
            console.print(f"[yellow]report:[/] {escape(denied(error))}")
    if state.dashboard_url and config["dashboard"]["screenshot"] and result.metrics:
        picture_of_dashboard(state.dashboard_url, folder)
    if run_id is not None:
        tracking.attempt(lambda tracker: tracker.finish_cell(run_id, result, folder, interrupted))
    if result.error:
        console.print(
            f"[yellow]{place} {escape(label)}: {result.status}[/]: {escape(result.error)}"
        )
    if interrupted:
        raise KeyboardInterrupt
    return result


def finish_sweep(folder: Path, tracking: Tracking) -> int:
    """Write the sweep's report, end its parent run, print the short table; returns exit status."""
    state = read_state(folder)
    interrupted = (folder / INTERRUPTED_FILE).exists()
    report = folder / REPORT_FILE
    try:
        write_sweep_report(folder)
    except OSError as error:
        console.print(f"[yellow]report:[/] {escape(denied(error))}")
    results = [run.result for run in read_runs(folder)]
    if state.parent_run_id is not None:
        parent = state.parent_run_id
        tracking.attempt(lambda tracker: tracker.finish_sweep(parent, results, folder, interrupted))
    console.print(terminal_table(results))
    if interrupted:
        console.print(f"interrupted: results of {len(results)} of {counted(state.cells, 'cell')}")
    told = f"report: {report}" if report.is_file() else f"results: {folder}"
    console.print(escape(told))
    end = {"event": "end", "words": f"ended; {told}"}
    sweep_journal(folder, state.dashboard_url).write(end)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if any(result.status.is_failure for result in results) else 0
