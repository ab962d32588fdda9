"""Finish a sweep: write its report, end its parent run, print the short table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.markup import escape
from rich.text import Text

from crossbench.errors import ResultError
from crossbench.events import RunEnded
from crossbench.report.cell import REPORT_FILE
from crossbench.report.cells import Run
from crossbench.report.sweep import read_runs, write_sweep_report
from crossbench.report.terminal import terminal_answer, terminal_table
from crossbench.results import Failure
from crossbench.settings.command_line import in_shell
from crossbench.sweeps.closing import closing
from crossbench.sweeps.folder import is_interrupted, mark_interrupted
from crossbench.sweeps.services import Tracking, console, sweep_journal
from crossbench.sweeps.state import read_state
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.command import os_error_message
from crossbench.system.stop_signals import EXIT_INTERRUPTED
from crossbench.wording import counted

EXIT_FAILED = 1


def finish_sweep(folder: Path, tracking: Tracking) -> int:
    """Write the report, end the parent run and print the table; return the exit status."""
    state = read_state(folder)
    interrupted = is_interrupted(folder)
    report = folder / REPORT_FILE
    try:
        closing.close_waiting(tracking, last=True)
        write_sweep_report(folder)
    except OSError as error:
        console.print(f"[yellow]report:[/] {escape(os_error_message(error))}")
    except KeyboardInterrupt:  # the parent run must still end
        console.print("[yellow]report:[/] interrupted while it was written")
        mark_interrupted(folder)
        interrupted = True
    runs = [_with_unsaved(run, folder) for run in read_runs(folder)]
    results = [run.result for run in runs]
    if state.parent_run_id is not None:
        parent = state.parent_run_id
        missing = len(results) < state.cells
        cut = missing or any(result.failure == Failure.INTERRUPTED for result in results)
        killed = interrupted and cut
        tracking.attempt(lambda tracker: tracker.finish_sweep(parent, results, folder, killed))
    console.print(Text(terminal_table(results)))
    if answer := terminal_answer(runs):
        console.print(Text(f"\n{answer}"))
    if interrupted:
        console.print(f"interrupted: results of {len(results)} of {counted(state.cells, 'cell')}")
    is_lost = unsaved_files.tell_lost(
        in_shell("python", "-m", "crossbench", "-m", f"resume={folder}")
    )
    location = f"report: {report}" if report.is_file() else f"results: {folder}"
    console.print(escape(location))
    sweep_journal(folder, state.dashboard_url).write(RunEnded(location, interrupted))
    if interrupted:
        return EXIT_INTERRUPTED
    failed = is_lost or any(result.status.is_failure for result in results)
    return EXIT_FAILED if failed or not any(result.metrics for result in results) else 0


def _with_unsaved(run: Run, folder: Path) -> Run:
    """Return the run with the result that could not be written, if it has one."""
    cell = folder / run.name
    if not unsaved_files.of(cell):
        return run
    try:
        return replace(run, result=unsaved_files.result_of(cell))
    except ResultError:
        return run
