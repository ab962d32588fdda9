"""What spans cells: the sweep's folder, its MLflow parent run, the order of its end.

State lives in `<sweep>/sweep.json`, so that every launcher's process finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from rich.markup import escape

from crossbench.addresses import keep_off_proxy
from crossbench.cell import run_cell
from crossbench.command import denied
from crossbench.compose import build, check_values
from crossbench.config import check_groups, to_plain
from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.dashboard.screenshot import SCREENSHOT_FILE, take_screenshot
from crossbench.errors import CrossbenchError, DashboardError, TrackingError
from crossbench.events import FileJournal, Journal, NoJournal
from crossbench.overrides import check_points, sweep_points, sweeper_params, swept_keys
from crossbench.progress import SteadyConsole, cell_progress
from crossbench.report.axes import full_label
from crossbench.report.cell import REPORT_FILE, write_cell_report
from crossbench.report.sweep import read_runs, terminal_table, write_sweep_report
from crossbench.results import RunResult, load_result
from crossbench.tracking import Place, Tracker
from crossbench.wording import counted

T = TypeVar("T")
STATE_FILE = "sweep.json"
INTERRUPTED_FILE = "INTERRUPTED"
DASHBOARD_FIGURES = (
    "throughput/pairs_per_s", "throughput/texts_per_s", "latency/p50_ms", "latency/p95_ms",
    "memory/rss_peak_mb",
)  # fmt: skip
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
console = SteadyConsole(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class SweepState:
    """A sweep of several cells, as its folder remembers it; `axes` are the keys that it varies."""

    name: str
    cells: int
    parent_run_id: str | None
    pid: int
    dashboard_url: str | None
    axes: tuple[str, ...]


class SweepCallback(Callback):
    """Hydra's hooks around a multirun; a single run has none of them."""

    def __init__(self) -> None:
        self._dashboard: Dashboard | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            self._dashboard = start_sweep(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            status = finish_sweep(Path(config.hydra.sweep.dir), make_tracker(config))
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
    except OSError as error:
        sys.exit(f"crossbench: {denied(error)}")
    except Exception:
        console.print_exception()
        sys.exit(EXIT_FAILED)


def start_sweep(config: DictConfig) -> Dashboard:
    """Compose every cell once, make the sweep's folder, open its parent run and its dashboard.

    Raises:
        ConfigError: a cell does not compose, or no cell has values that can be used; nothing was
            started.
    """
    given = list(config.hydra.overrides.task)
    swept = sweeper_params(config.hydra.sweeper.params or {}, given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # the sweeper that Hydra makes next reads it here
    overrides = [*(f"{key}={value}" for key, value in swept.items()), *given]
    points = sweep_points(overrides)
    check_points(points, check_values)
    tracker = make_tracker(config)
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    dashboard = make_dashboard(config)
    dashboard.start(folder / JOURNAL_FILE)
    # While it comes up; it is up before the first cell starts
    parent = tracked(lambda: tracker.start_sweep(folder.name, overrides))
    url = dashboard_url(dashboard)
    state = SweepState(folder.name, len(points), parent, os.getpid(), url, swept_keys(points))
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)) + "\n", "utf-8")
    journal = sweep_journal(folder, url)
    journal.write({"event": "sweep", "name": folder.name, "cells": len(points)})
    return dashboard


def run_job(config: DictConfig) -> None:
    """Hydra's task: measure the composed cell, track it, report it.

    Ctrl-C ends the cell in order and marks the sweep, whose remaining cells are then left out, so
    that Hydra comes to the sweep's end and its report is written.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    single = hydra.mode == RunMode.RUN
    plain = _checked(config, folder) if single else to_plain(config)
    state = None if single else read_state(folder.parent)
    if not single and (folder.parent / INTERRUPTED_FILE).exists():
        folder.rmdir()  # Hydra has made it, and a cell that was left out is no failed one
        return
    tracker = make_tracker(config)
    if state is None:
        _run_single(config, plain, folder, tracker)
        return
    try:
        measure_and_track(plain, folder, state, hydra.job.num, tracker)
    except KeyboardInterrupt:
        (folder.parent / INTERRUPTED_FILE).touch()
    except OSError as error:  # raised on, it would take the sweep's end with it
        console.print(f"[yellow]cell {hydra.job.num + 1}:[/] {escape(denied(error))}")


def _checked(config: DictConfig, folder: Path) -> dict[str, Any]:
    """A lone cell that cannot be measured is refused like a typo; its folder is Hydra's doing.

    Raises:
        CrossbenchError: what was wrong, what was given and what to give.
    """
    try:
        plain = to_plain(config)
        check_values(plain)
    except CrossbenchError:
        with contextlib.suppress(OSError):  # it is somebody's who has files there
            folder.rmdir()
            folder.parent.rmdir()
        raise
    return plain


def _run_single(
    config: DictConfig, plain: Mapping[str, Any], folder: Path, tracker: Tracker
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    dashboard = make_dashboard(config)
    dashboard.start(folder.parent / JOURNAL_FILE)
    url = dashboard_url(dashboard)
    state = SweepState(folder.parent.name, 1, None, os.getpid(), url, ())
    try:
        result = measure_and_track(plain, folder, state, 0, tracker)
    except KeyboardInterrupt:
        console.print(f"interrupted; what there is lies in {folder}")
        sys.exit(EXIT_INTERRUPTED)
    finally:
        sweep_journal(folder.parent, url).write(
            {"event": "end", "words": f"ended; report: {folder / 'report.md'}"}
        )
        dashboard.close()
    console.print(terminal_table([result]))
    console.print(f"report: {folder / 'report.md'}")
    if result.status.is_failure:
        sys.exit(EXIT_FAILED)


def measure_and_track(
    config: Mapping[str, Any],
    folder: Path,
    state: SweepState,
    number: int,
    tracker: Tracker,
) -> RunResult:
    """One cell from its config to its report and its MLflow run."""
    label = full_label(config, state.axes)
    place = f"cell {number + 1}/{state.cells}"
    where = Place(folder.parent.name, number)
    run_id = tracked(lambda: tracker.start_cell(label, state.parent_run_id, where))
    journal = sweep_journal(folder.parent, state.dashboard_url, cell=number)
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
        _take_screenshot(state.dashboard_url, folder)
    if run_id is not None:
        tracked(lambda: tracker.finish_cell(run_id, result, folder, interrupted))
    if result.error:
        console.print(
            f"[yellow]{place} {escape(label)}: {result.status}[/]: {escape(result.error)}"
        )
    if interrupted:
        raise KeyboardInterrupt
    return result


def finish_sweep(folder: Path, tracker: Tracker) -> int:
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
        tracked(lambda: tracker.finish_sweep(parent, results, folder, interrupted))
    console.print(terminal_table(results))
    if interrupted:
        console.print(f"interrupted: results of {len(results)} of {counted(state.cells, 'cell')}")
    console.print(f"report: {report}")
    end = {"event": "end", "words": f"ended; report: {report}"}
    sweep_journal(folder, state.dashboard_url).write(end)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if any(result.status.is_failure for result in results) else 0


def read_state(folder: Path) -> SweepState:
    state = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return SweepState(**{**state, "axes": tuple(state["axes"])})


def make_dashboard(config: DictConfig) -> Dashboard:
    node = OmegaConf.to_container(config.dashboard, resolve=True)
    assert isinstance(node, dict)
    check_groups({"dashboard": node})
    dashboard: Dashboard = build({str(key): value for key, value in node.items()})
    return dashboard


def dashboard_url(dashboard: Dashboard) -> str | None:
    """Where it is, once it is up; one that does not come up costs a warning, never a result."""
    try:
        url = dashboard.ready()
    except DashboardError as error:
        console.print(f"[yellow]dashboard:[/] {escape(str(error))} (measuring without it)")
        return None
    if url:
        note = f"  ({dashboard.note})" if dashboard.note else ""
        console.print(f"dashboard: {url}{note}")
    return url


def sweep_journal(folder: Path, url: str | None, **about: int) -> Journal:
    """Where events of this sweep go; nowhere if no dashboard shows them."""
    return FileJournal(folder / JOURNAL_FILE, about) if url else NoJournal()


def _take_screenshot(url: str, folder: Path) -> None:
    try:
        take_screenshot(url, folder / SCREENSHOT_FILE)
    except DashboardError as error:
        console.print(f"[yellow]dashboard:[/] {escape(str(error))}")


def make_tracker(config: DictConfig) -> Tracker:
    node = OmegaConf.to_container(config.tracker, resolve=True)
    assert isinstance(node, dict)
    keep_off_proxy(str(node.get("uri")))
    tracker: Tracker = build({str(key): value for key, value in node.items()})
    return tracker


def tracked(call: Callable[[], T]) -> T | None:
    """A tracker that is out of reach costs a warning, never a result."""
    try:
        return call()
    except TrackingError as error:
        console.print(
            f"[yellow]tracking:[/] {escape(str(error))} (results stay on disk: "
            "python -m crossbench.sync uploads them later)"
        )
        return None
