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
from rich.console import Console
from rich.markup import escape

from crossbench.cell import run_cell
from crossbench.compose import build
from crossbench.config import to_plain
from crossbench.errors import CrossbenchError, TrackingError
from crossbench.overrides import check_points, sweep_points, without_given
from crossbench.progress import cell_progress
from crossbench.report.cell import write_cell_report
from crossbench.report.sweep import read_runs, terminal_table, write_sweep_report
from crossbench.results import RunResult, Status, load_result
from crossbench.tracking import Tracker

T = TypeVar("T")
STATE_FILE = "sweep.json"
INTERRUPTED_FILE = "INTERRUPTED"
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class SweepState:
    """A sweep of several cells, as its folder remembers it."""

    name: str
    cells: int
    parent_run_id: str | None
    pid: int


class SweepCallback(Callback):
    """Hydra's hooks around a multirun; a single run has none of them."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            start_sweep(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            status = finish_sweep(Path(config.hydra.sweep.dir), make_tracker(config))
        if status:
            sys.exit(status)


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """Hydra turns a hook's exception into a warning and goes on; what must stop it is an exit."""
    try:
        yield
    except CrossbenchError as error:
        sys.exit(f"crossbench: {error}")
    except Exception:
        console.print_exception()
        sys.exit(EXIT_FAILED)


def start_sweep(config: DictConfig) -> None:
    """Compose every cell once, make the sweep's folder, open its parent run.

    Raises:
        ConfigError: a cell does not compose; nothing was started.
    """
    given = list(config.hydra.overrides.task)
    swept = without_given(config.hydra.sweeper.params or {}, given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # the sweeper that Hydra makes next reads it here
    overrides = [*(f"{key}={value}" for key, value in swept.items()), *given]
    points = sweep_points(overrides)
    check_points(points)
    tracker = make_tracker(config)
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    parent = tracked(lambda: tracker.start_sweep(folder.name, overrides))
    state = SweepState(folder.name, len(points), parent, os.getpid())
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)) + "\n", "utf-8")


def run_job(config: DictConfig) -> None:
    """Hydra's task: measure the composed cell, track it, report it.

    Ctrl-C ends the cell in order and marks the sweep, whose remaining cells are then left out, so
    that Hydra comes to the sweep's end and its report is written.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    plain = to_plain(config)
    single = hydra.mode == RunMode.RUN
    state = None if single else read_state(folder.parent)
    if not single and (folder.parent / INTERRUPTED_FILE).exists():
        folder.rmdir()  # Hydra has made it, and a cell that was left out is no failed one
        return
    tracker = make_tracker(config)
    try:
        number = 0 if single else hydra.job.num
        result = measure_and_track(plain, folder, state, number, tracker)
    except KeyboardInterrupt:
        if single:
            console.print(f"interrupted; what there is lies in {folder}")
            sys.exit(EXIT_INTERRUPTED)
        (folder.parent / INTERRUPTED_FILE).touch()
        return
    if single:
        console.print(terminal_table([result]))
        console.print(f"report: {folder / 'report.md'}")
        if _is_failure(result):
            sys.exit(EXIT_FAILED)


def measure_and_track(
    config: Mapping[str, Any],
    folder: Path,
    state: SweepState | None,
    number: int,
    tracker: Tracker,
) -> RunResult:
    """One cell from its config to its report and its MLflow run."""
    label = cell_label(config)
    place = f"cell {number + 1}/{state.cells if state else 1}"
    parent = state.parent_run_id if state else None
    run_id = tracked(lambda: tracker.start_cell(label, parent))
    interrupted = False
    with cell_progress(f"{place} {label}", config) as progress:
        try:
            result = run_cell(config, folder, progress)
        except KeyboardInterrupt:
            interrupted = True
            result = load_result(folder)
    write_cell_report(folder)
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
    report = write_sweep_report(folder)
    results = [run.result for run in read_runs(folder)]
    failed = any(_is_failure(result) for result in results)
    if state.parent_run_id is not None:
        parent = state.parent_run_id
        tracked(lambda: tracker.finish_sweep(parent, folder, failed, interrupted))
    console.print(terminal_table(results))
    if interrupted:
        console.print(f"interrupted after {len(results)} of {state.cells} cells")
    console.print(f"report: {report}")
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failed else 0


def read_state(folder: Path) -> SweepState:
    return SweepState(**json.loads((folder / STATE_FILE).read_text("utf-8")))


def make_tracker(config: DictConfig) -> Tracker:
    node = OmegaConf.to_container(config.tracker, resolve=True)
    assert isinstance(node, dict)
    tracker: Tracker = build({str(key): value for key, value in node.items()})
    return tracker


def tracked(call: Callable[[], T]) -> T | None:
    """A tracker that is out of reach costs a warning, never a result."""
    try:
        return call()
    except TrackingError as error:
        console.print(f"[yellow]tracking:[/] {escape(str(error))} (results stay on disk)")
        return None


def cell_label(config: Mapping[str, Any]) -> str:
    """What a person calls the cell: backend, precision, batch and concurrency."""
    return (
        f"{config['backend']['name']} {config['quant']['name']} "
        f"batch={config['batch']} concurrency={config['concurrency']}"
    )


def _is_failure(result: RunResult) -> bool:
    return result.status not in (Status.FINISHED, Status.UNSUPPORTED)
