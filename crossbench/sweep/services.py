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
from crossbench.settings.flatten import without_credentials
from crossbench.settings.run import RunSettings
from crossbench.sweep.progress import SteadyConsole
from crossbench.system.addresses import bypass_proxy
from crossbench.tracking.protocol import Tracker

T = TypeVar("T")
console = SteadyConsole(stderr=True, emoji=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Tracking:
    """A tracker, and the command that later uploads what the tracker missed."""

    tracker: Tracker
    sync_command: str

    def attempt(self, call: Callable[[Tracker], T]) -> T | None:
        """Call the tracker; print a warning and return None if it cannot be reached."""
        try:
            return call(self.tracker)
        except TrackingError as error:
            console.print(
                f"[yellow]tracking:[/] {escape(str(error))} (the results are on disk; "
                f"to upload those of this run later: {escape(self.sync_command)})"
            )
            return None


def make_tracking(run: RunSettings, folder: Path) -> Tracking:
    """Build the tracker of the run in `folder`."""
    where = [
        word for word in run.overrides if word.lstrip("+").startswith(("tracker", "outputs_dir"))
    ]
    command = in_shell("python", "-m", "crossbench.sync", str(folder), *where)
    return Tracking(make_tracker(run), without_credentials(command))


def make_tracker(run: RunSettings) -> Tracker:
    """Build the tracker of a run."""
    bypass_proxy(str(run.tracker.values.get("uri")))
    tracker: Tracker = run.tracker.build()
    return tracker


def dashboard_url(dashboard: Dashboard) -> str | None:
    """Wait for the dashboard and return its URL; print a warning if it does not start."""

    def warn(reason: str) -> None:
        console.print(f"[yellow]dashboard:[/] {escape(reason)} (measuring without it)")

    return wait_for_url(dashboard, lambda text: console.print(escape(text)), warn)


def sweep_journal(folder: Path, url: str | None, cell: int | None = None) -> Journal:
    """Return the journal of the run in `folder` or of its cell; without a dashboard, none."""
    return FileJournal(folder / JOURNAL_FILE, cell) if url else NoJournal()


def screenshot_dashboard(url: str, cell: Path, token: str | None) -> None:
    """Save a screenshot of the live page in the folder of a cell."""
    try:
        take_screenshot(url, cell / SCREENSHOT_FILE, token)
    except DashboardError as error:
        console.print(f"[yellow]dashboard:[/] {escape(str(error))}")
