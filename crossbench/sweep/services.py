"""The tracker and the dashboard of a run: made from its config; one that fails costs a warning."""

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
    """A tracker, and the command that uploads later what it could not take."""

    tracker: Tracker
    sync_command: str

    def attempt(self, call: Callable[[Tracker], T]) -> T | None:
        """A tracker that is out of reach costs a warning, never a result."""
        try:
            return call(self.tracker)
        except TrackingError as error:
            console.print(
                f"[yellow]tracking:[/] {escape(str(error))} (results stay on disk: "
                "python -m crossbench.sync uploads them later; those of this run: "
                f"{escape(self.sync_command)})"
            )
            return None


def make_tracking(run: RunSettings, folder: Path) -> Tracking:
    """The tracker of the run in `folder`."""
    where = [
        word for word in run.overrides if word.lstrip("+").startswith(("tracker", "outputs_dir"))
    ]
    command = in_shell("python", "-m", "crossbench.sync", str(folder), *where)
    return Tracking(make_tracker(run), without_credentials(command))


def make_tracker(run: RunSettings) -> Tracker:
    bypass_proxy(str(run.tracker.values.get("uri")))
    tracker: Tracker = run.tracker.build()
    return tracker


def dashboard_url(dashboard: Dashboard) -> str | None:
    """Where it is, once it is up; one that does not come up costs a warning, never a result."""

    def warn(reason: str) -> None:
        console.print(f"[yellow]dashboard:[/] {escape(reason)} (measuring without it)")

    return wait_for_url(dashboard, lambda text: console.print(escape(text)), warn)


def sweep_journal(folder: Path, url: str | None, cell: int | None = None) -> Journal:
    """Where events of the run in `folder`, or of its cell, go; nowhere without a dashboard."""
    return FileJournal(folder / JOURNAL_FILE, cell) if url else NoJournal()


def picture_of_dashboard(url: str, cell: Path) -> None:
    """Keep a picture of the page beside a cell's report."""
    try:
        take_screenshot(url, cell / SCREENSHOT_FILE)
    except DashboardError as error:
        console.print(f"[yellow]dashboard:[/] {escape(str(error))}")
