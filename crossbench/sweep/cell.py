"""Measure one cell from the parent process: start the cell process, follow it, load its result."""

from __future__ import annotations

import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from crossbench.dashboard.journal import Journal
from crossbench.errors import CrossbenchError, ResultError
from crossbench.events import FlagsChanged, ProgressMade, StageStarted, decode
from crossbench.measure.probes import environment
from crossbench.results import Failure, RunResult, Status, load_result, save_result
from crossbench.runner.checks import check_config
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import drop_secrets, save_config
from crossbench.sweep.child import LOG_FILE, cell_child
from crossbench.sweep.progress import CellProgress
from crossbench.sweep.watchdog import Watchdog, place_of_hang, time_limits
from crossbench.system.credentials import hide, texts_with_credentials
from crossbench.wording import exit_description

LOG_LINES_IN_ERROR = 5
# To finish the requests in flight and write the result; a second Ctrl-C kills at once
STOP_GRACE_S = 30.0


def run_cell(
    config: CellConfig, folder: Path, progress: CellProgress, journal: Journal
) -> RunResult:
    """Measure one cell in a fresh process. Every outcome, a crash too, is a result in `folder`.

    On KeyboardInterrupt the cell process stops and keeps what it has measured; the exception is
    raised again after the result is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    save_config(config, folder)
    try:
        limits = time_limits(check_config(config))
    except CrossbenchError as error:
        return _failed(config, folder, started_at, str(error))
    interrupted = False
    with cell_child(folder) as child, closing(Watchdog(child, limits)) as watchdog:
        try:
            _follow(child, progress, journal, watchdog)
            child.wait()  # while the watchdog runs: engines may hang when their process ends
        except KeyboardInterrupt:
            interrupted = True
            _end(child)
    drop_secrets(folder)
    try:
        result = load_result(folder)
        if watchdog.exceeded and not interrupted:  # after the measurement, which is kept
            reason, failure = _hang_reason(watchdog.exceeded, folder), Failure.TIMED_OUT
            result = replace(result, status=Status.FAILED, error=reason, failure=failure)
            save_result(result, folder)
    except ResultError:
        if interrupted:
            reason, failure = "interrupted by Ctrl-C", Failure.INTERRUPTED
        elif watchdog.exceeded:
            reason, failure = _hang_reason(watchdog.exceeded, folder), Failure.TIMED_OUT
        else:
            reason, failure = _exit_reason(child.returncode, folder), Failure.CRASHED
        result = _failed(config, folder, started_at, reason, failure)
    if interrupted:
        raise KeyboardInterrupt
    return result


def _follow(
    child: subprocess.Popen[str], progress: CellProgress, journal: Journal, watchdog: Watchdog
) -> None:
    """Read the events of the cell process until it closes its pipe.

    A killed process may leave an incomplete line, which is skipped.
    """
    assert child.stdout is not None
    for line in child.stdout:
        recorded = decode(line)
        if recorded is None:
            continue
        journal.write(recorded.event, recorded.time_s)
        match recorded.event:
            case StageStarted(stage):
                progress.stage(stage)
                watchdog.stage(stage)
            case ProgressMade():
                progress.advance(recorded.event)
            case FlagsChanged(flags):
                progress.flag(flags)


def _end(child: subprocess.Popen[str]) -> None:
    """Tell the cell process to stop and write its result; kill it if it takes too long."""
    child.terminate()
    try:
        child.wait(STOP_GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()


def _hang_reason(exceeded: str, folder: Path) -> str:
    place = place_of_hang(folder / LOG_FILE)
    where = f" It was at {place}." if place else ""
    return f"the cell was ended because {exceeded}.{where} {LOG_FILE} has the stacks of all threads"


def _exit_reason(returncode: int, folder: Path) -> str:
    """Return why a cell process ended without a result, with the last lines of its log."""
    reason = f"the cell process {exit_description(returncode)}"
    if returncode >= 0:
        reason += " and wrote no result"
    lines = (folder / LOG_FILE).read_text("utf-8", errors="replace").strip().splitlines()
    tail = " | ".join(lines[-LOG_LINES_IN_ERROR:])
    return f"{reason}; see {LOG_FILE}" + (f": {tail}" if tail else "")


def _failed(
    config: CellConfig, folder: Path, started_at: str, error: str, failure: str = ""
) -> RunResult:
    result = RunResult(
        status=Status.FAILED,
        config=config,
        cell_id=config.cell_id,
        error=hide(error, *texts_with_credentials(config.document)),
        failure=failure,
        environment=environment(),
        started_at=started_at,
    )
    save_result(result, folder)
    return result
