"""Where a dashboard is, said once it is up."""

from __future__ import annotations

from collections.abc import Callable

from crossbench.dashboard.process import Dashboard
from crossbench.errors import DashboardError


def url_once_up(
    dashboard: Dashboard, tell: Callable[[str], None], warn: Callable[[str], None]
) -> str | None:
    """Wait for its URL and `tell` it; None without a dashboard.

    One that does not come up costs a warning, never a result: `warn` gets the reason.
    """
    try:
        url = dashboard.ready()
    except DashboardError as error:
        warn(str(error))
        return None
    if url:
        tell(f"dashboard: {url}" + (f"  ({dashboard.note})" if dashboard.note else ""))
    return url
