"""Measure one cell from the parent process: start the cell process, follow it, load its result."""

from __future__ import annotations

import base64
import subprocess
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from crossbench.dashboard.journal import Journal
from crossbench.errors import CrossbenchError, ResultError
from crossbench.events import FileKept, FlagsChanged, ProgressMade, StageStarted, decode
from crossbench.measure.probes import environment
from crossbench.results import Failure, RunResult, Status, save_result
from crossbench.runner.checks import check_config
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import drop_secrets, save_config
from crossbench.sweeps.child import LOG_FILE, cell_child
from crossbench.sweeps.progress import CellProgress
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.sweeps.watchdog import Watchdog, place_of_hang, time_limits
from crossbench.system.credentials import hide, texts_with_credentials
from crossbench.system.files import NotWritten
from crossbench.system.stop_signals import raise_if_stopped, stopped_by
from crossbench.wording import exit_description

LOG_LINES_IN_ERROR = 5
# To finish the requests in flight and write the result; a second Ctrl-C kills at once
STOP_GRACE_S = 30.0


def run_cell(
    config: CellConfig, folder: Path, progress: CellProgress, journal: Journal
) -> RunResult:
    """Measure one cell in a fresh process. Every outcome, a crash too, is a result in `folder`.

    A result that cannot be written is kept in `unsaved_files`. On KeyboardInterrupt the cell
    process stops and keeps what it has measured; the exception is raised again after that.

    Raises:
        OSError: the cell was not measured, because its folder cannot be written.
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
        follower = Follower(folder, progress, journal, watchdog)
        try:
            follower.follow(child)
        except KeyboardInterrupt:
            interrupted = True
            follower.stop(child)
    drop_secrets(folder)
    if interrupted:
        interrupted_result(config, folder, started_at)
        raise KeyboardInterrupt
    try:
        result = unsaved_files.result_of(folder)
    except ResultError:
        if watchdog.exceeded:
            reason, failure = _hang_reason(watchdog.exceeded, folder), Failure.TIMED_OUT
        else:
            reason, failure = _exit_reason(child.returncode, folder), Failure.CRASHED
        return _failed(config, folder, started_at, reason, failure)
    if watchdog.exceeded:  # after the measurement, which is kept
        reason, failure = _hang_reason(watchdog.exceeded, folder), Failure.TIMED_OUT
        result = replace(result, status=Status.FAILED, error=reason, failure=failure)
        _save(result, folder)
    return result


def interrupted_result(config: CellConfig, folder: Path, started_at: str = "") -> RunResult:
    """Return the result of an interrupted cell, which says by what; it is saved if it has none."""
    by = f"interrupted by {stopped_by() or 'Ctrl-C'}"
    try:
        result = unsaved_files.result_of(folder)
    except ResultError:
        return _failed(config, folder, started_at, by, Failure.INTERRUPTED)
    if result.failure != Failure.INTERRUPTED or (result.error or "").startswith(by):
        return result
    error = (result.error or "").removeprefix(Failure.INTERRUPTED)
    result = replace(result, error=f"{by}{error}")
    _save(result, folder)
    return result


def _save(result: RunResult, folder: Path) -> None:
    try:
        unsaved_files.forget(save_result(result, folder))  # an earlier state of it
    except NotWritten as error:
        unsaved_files.keep(error)


@dataclass(frozen=True)
class Follower:
    """Handles the events of a cell process."""

    folder: Path
    progress: CellProgress
    journal: Journal
    watchdog: Watchdog

    def follow(self, child: subprocess.Popen[str]) -> None:
        """Follow the cell process until it ends.

        Raises:
            KeyboardInterrupt: after a stop signal.
        """
        assert child.stdout is not None
        for line in child.stdout:
            raise_if_stopped()
            self._handle(line)
        child.wait()  # while the watchdog runs: engines may hang when their process ends

    def stop(self, child: subprocess.Popen[str]) -> None:
        """Tell the cell process to write its result; kill it if it takes too long."""
        assert child.stdout is not None
        child.terminate()
        killer = threading.Timer(STOP_GRACE_S, child.kill)
        killer.daemon = True
        killer.start()
        try:
            for line in child.stdout:  # a full pipe would keep it from ending
                self._handle(line)
            child.wait()
        except KeyboardInterrupt:
            child.kill()
        finally:
            killer.cancel()

    def _handle(self, line: str) -> None:
        recorded = decode(line)
        if recorded is None:  # a killed process may leave an incomplete line
            return
        if isinstance(recorded.event, FileKept):
            self._keep(recorded.event)
            return
        self.journal.write(recorded.event, recorded.time_s)
        match recorded.event:
            case StageStarted(stage):
                self.progress.stage(stage)
                self.watchdog.stage(stage)
            case ProgressMade():
                self.progress.advance(recorded.event)
            case FlagsChanged(flags):
                self.progress.flag(flags)

    def _keep(self, event: FileKept) -> None:
        """Keep a file that the cell process could not write, or forget it."""
        path = self.folder / event.name
        if event.content is None:
            unsaved_files.forget(path)
        else:
            content = base64.b64decode(event.content)
            unsaved_files.keep(NotWritten(path, content, OSError(None, event.reason)))


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
        started_at=started_at or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _save(result, folder)
    return result
