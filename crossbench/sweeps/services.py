"""The tracker and the dashboard of a run. A failure of either is a warning, not an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.markup import escape

from crossbench.dashboard.address import wait_for_url
from crossbench.dashboard.journal import FileJournal, Journal, NoJournal
from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.dashboard.screenshot import SCREENSHOT_FILE, take_screenshot
from crossbench.errors import DashboardError, TrackingError
from crossbench.settings.command_line import in_shell
from crossbench.settings.run import RunSettings
from crossbench.sweeps.folder import OFFLINE_FILE
from crossbench.sweeps.progress import SteadyConsole
from crossbench.system.addresses import bypass_proxy
from crossbench.system.bounded import within
from crossbench.system.credentials import hide_argument
from crossbench.tracking.protocol import Tracker

PREPARING_S = 120.0  # to import MLflow and create a new store: seconds, or more on a busy machine
T = TypeVar("T")
TrackerT = TypeVar("TrackerT", bound=Tracker)
_offline_files: set[Path] = set()  # those that could not be written
console = SteadyConsole(stderr=True, emoji=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Tracking:
    """A tracker, and the command that later uploads what the tracker missed.

    After its first failure the tracker is not called again in this run, so that it does not hold up
    each cell. Cells may run in different processes, so the file `offline` marks that. A call takes
    at most `timeout_s` seconds; None: the tracker stores nothing.
    """

    tracker: Tracker
    sync_command: str
    offline: Path
    timeout_s: float | None

    def attempt(self, call: Callable[[Tracker], T]) -> T | None:
        """Call the tracker; return None if it has failed. The first failure prints a warning."""
        if self.offline.exists() or self.offline in _offline_files:
            return None
        try:
            if self.timeout_s is None:
                return call(self.tracker)
            return call_within(self.timeout_s, self.tracker, call)
        except TrackingError as error:
            reason = str(error)
        try:
            self.offline.touch()
        except OSError:
            _offline_files.add(self.offline)
        console.print(
            f"[yellow]tracking:[/] {escape(reason)} (this run goes on without it; the results are "
            f"on disk; to upload those of this run later: {escape(self.sync_command)})"
        )
        return None


def call_within(limit_s: float, tracker: TrackerT, call: Callable[[TrackerT], T]) -> T:
    """Return what `call` returns, which may take `limit_s` seconds; importing MLflow is extra.

    Raises:
        TrackingError: the store fails, or the call takes longer.
    """
    try:
        within(PREPARING_S, tracker.prepare)
        return within(limit_s, lambda: call(tracker))
    except TimeoutError as error:
        raise TrackingError(
            f"the tracker did not end its work within {limit_s:g} s. Check that it is reachable, "
            "or give it more time: tracker.timeout_s=60"
        ) from error


def make_tracking(run: RunSettings, folder: Path) -> Tracking:
    """Build the tracker of the run in `folder`."""
    where = [
        hide_argument(word)
        for word in run.overrides
        if word.lstrip("+").startswith(("tracker", "outputs_dir"))
    ]
    command = in_shell("python", "-m", "crossbench.sync", str(folder), *where)
    timeout_s = run.tracker.values.get("timeout_s")
    return Tracking(make_tracker(run), command, folder / OFFLINE_FILE, timeout_s)


def make_tracker(run: RunSettings) -> Tracker:
    """Build the tracker of a run."""
    bypass_proxy(str(run.tracker.values.get("uri")))
    tracker: Tracker = run.tracker.build()
    return tracker


def dashboard_url(dashboard: Dashboard) -> str | None:
    """Wait for the dashboard and return its URL; print a warning if it does not start."""

    def warn(reason: str) -> None:
        console.print(f"[yellow]dashboard:[/] {escape(reason)} (measuring without it)")

    return wait_for_url(dashboard, lambda text: console.tell(escape(text)), warn)


def sweep_journal(folder: Path, url: str | None, cell: int | None = None) -> Journal:
    """Return the journal of the run in `folder` or of its cell; without a dashboard, none."""
    return FileJournal(folder / JOURNAL_FILE, cell) if url else NoJournal()


def screenshot_dashboard(url: str, cell: Path, token: str | None) -> None:
    """Save a screenshot of the live page in the folder of a cell."""
    try:
        take_screenshot(url, cell / SCREENSHOT_FILE, token)
    except DashboardError as error:
        console.print(f"[yellow]dashboard:[/] {escape(str(error))}")
