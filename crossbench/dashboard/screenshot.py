"""A picture of the page, by the Chromium of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from crossbench.errors import DashboardError

SCREENSHOT_FILE = "dashboard.png"
WIDTH, HEIGHT = 1280, 800
TIMEOUT_MS = 20_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# It only ever opens our own page: no sandbox, which root has none of, no proxy, no errands.
BROWSER_ARGS = (
    "--no-sandbox", "--no-proxy-server", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip


def find_browser() -> str | None:
    """The Chromium that CROSSBENCH_CHROMIUM names, or the first one on the PATH."""
    named = os.environ.get("CROSSBENCH_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def take_screenshot(url: str, path: Path) -> None:
    """Save the whole page at `url` as a PNG, 1280 pixels wide.

    Raises:
        DashboardError: Playwright or a browser is not here, or the page did not come up in it.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise DashboardError(
            "dashboard.screenshot=true needs Playwright: pip install playwright"
        ) from error
    browser_path = find_browser()
    if browser_path is None:
        raise DashboardError(
            "dashboard.screenshot=true needs Chromium or Chrome: install one, or name it in "
            "CROSSBENCH_CHROMIUM"
        )
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=list(BROWSER_ARGS)
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(url, timeout=TIMEOUT_MS)
            page.wait_for_selector(".chart svg path", timeout=TIMEOUT_MS, state="attached")
            page.wait_for_timeout(1500)  # one more second's figures
            page.screenshot(path=path, full_page=True, timeout=TIMEOUT_MS)
            browser.close()
    except Error as error:
        words = " ".join(str(error).split())  # whole: Playwright ends with what to install
        raise DashboardError(f"no picture of the dashboard: {words}") from error
