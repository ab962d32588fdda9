"""Waits for the dashboard and prints its URL."""

from __future__ import annotations

from collections.abc import Callable

from crossbench.dashboard.process import Dashboard
from crossbench.errors import DashboardError


def wait_for_url(
    dashboard: Dashboard, inform: Callable[[str], None], warn: Callable[[str], None]
) -> str | None:
    """Wait for the dashboard's URL, pass it to `inform` and return it; None without a dashboard.

    If the dashboard does not start, `warn` gets the reason and the run continues.
    """
    try:
        url = dashboard.ready()
    except DashboardError as error:
        warn(str(error))
        return None
    if url:
        inform(f"dashboard: {url}" + (f"  ({dashboard.note})" if dashboard.note else ""))
    return url
