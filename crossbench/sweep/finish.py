"""Finish a sweep: write its report, end its parent run, print the short table."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.text import Text

from crossbench.events import RunEnded
from crossbench.report.cell import REPORT_FILE
from crossbench.report.sweep import read_runs, write_sweep_report
from crossbench.report.terminal import terminal_answer, terminal_table
from crossbench.sweep.folder import INTERRUPTED_FILE
from crossbench.sweep.services import (
    Tracking,
    console,
    sweep_journal,
)
from crossbench.sweep.state import read_state
from crossbench.system.command import os_error_message
from crossbench.system.stop_signals import EXIT_INTERRUPTED
from crossbench.wording import counted

EXIT_FAILED = 1


def finish_sweep(folder: Path, tracking: Tracking) -> int:
    """Write the report, end the parent run and print the table; return the exit status."""
    state = read_state(folder)
    interrupted = (folder / INTERRUPTED_FILE).exists()
    report = folder / REPORT_FILE
    try:
        write_sweep_report(folder)
    except OSError as error:
        console.print(f"[yellow]report:[/] {escape(os_error_message(error))}")
    except KeyboardInterrupt:  # the parent run must still end
        console.print("[yellow]report:[/] interrupted while it was written")
        (folder / INTERRUPTED_FILE).touch()
        interrupted = True
    runs = read_runs(folder)
    results = [run.result for run in runs]
    if state.parent_run_id is not None:
        parent = state.parent_run_id
        tracking.attempt(lambda tracker: tracker.finish_sweep(parent, results, folder, interrupted))
    console.print(Text(terminal_table(results)))
    if answer := terminal_answer(runs):
        console.print(Text(f"\n{answer}"))
    if interrupted:
        console.print(f"interrupted: results of {len(results)} of {counted(state.cells, 'cell')}")
    location = f"report: {report}" if report.is_file() else f"results: {folder}"
    console.print(escape(location))
    sweep_journal(folder, state.dashboard_url).write(RunEnded(f"ended; {location}"))
    if interrupted:
        return EXIT_INTERRUPTED
    failed = any(result.status.is_failure for result in results)
    return EXIT_FAILED if failed or not any(result.metrics for result in results) else 0
