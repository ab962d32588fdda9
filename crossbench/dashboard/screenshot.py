"""Takes a screenshot of the page with this machine's Chromium."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from crossbench.errors import DashboardError

SCREENSHOT_FILE = "dashboard.png"
WIDTH, HEIGHT = 1280, 800
TIMEOUT_MS = 20_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The browser only opens our own page. Its sandbox does not work for root.
BROWSER_ARGS = (
    "--no-sandbox", "--no-proxy-server", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip


def find_browser() -> str | None:
    """The path in CROSSBENCH_CHROMIUM, or the first Chromium on the PATH; None without any."""
    named = os.environ.get("CROSSBENCH_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def take_screenshot(url: str, path: Path, token: str | None) -> None:
    """Save the whole page at `url`, which may ask for `token`, as a PNG, 1280 pixels wide.

    Raises:
        DashboardError: Playwright or a browser is not installed, or the page did not load.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise DashboardError(
            "dashboard.screenshot=true needs Playwright: pip install playwright"
        ) from error
    from crossbench.dashboard.token import Cookie

    browser_path = find_browser()
    if browser_path is None:
        raise DashboardError(
            "dashboard.screenshot=true needs Chromium or Chrome: install one, or set "
            "CROSSBENCH_CHROMIUM to its path"
        )
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=list(BROWSER_ARGS)
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            if token is not None:  # in a cookie, as an error would tell a URL with the token
                cookie = Cookie.of(token, urlsplit(url).port or 80)
                page.context.add_cookies([{"name": cookie.name, "value": cookie.value, "url": url}])
            page.goto(url, timeout=TIMEOUT_MS)
            page.wait_for_selector(".chart svg path", timeout=TIMEOUT_MS, state="attached")
            page.wait_for_timeout(1500)  # wait for the next update
            page.screenshot(path=path, full_page=True, timeout=TIMEOUT_MS)
            browser.close()
    except Error as error:
        message = " ".join(str(error).split())  # not cut: Playwright ends with what to install
        raise DashboardError(f"the screenshot of the dashboard failed: {message}") from error
