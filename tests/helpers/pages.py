"""The page of a dashboard in a browser."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WATCH_SHIFTS = """
    window.shifts = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.shifts += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
"""


@contextlib.contextmanager
def opened(browser: Browser, url: str, width: int = 1280, scheme: Any = "light") -> Iterator[Page]:
    """The page with drawn charts; checks that it logs no error and uses no other host."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    trouble: list[str] = []
    page.on(
        "console", lambda message: trouble.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: trouble.append(asked.url) if is_outside(asked.url) else None)
    page.add_init_script(WATCH_SHIFTS)
    page.goto(url)
    page.wait_for_selector(".chart svg path", state="attached")
    yield page
    assert trouble == []
    context.close()


def is_outside(address: str) -> bool:
    return not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", address)


def tile(page: Page, label: str) -> str:
    """The value shown in the tile with this heading."""
    heading = page.locator("h3").get_by_text(label, exact=True)
    return str(page.locator(".tile", has=heading).locator("strong").inner_text())


def wait_for_status(page: Page, text: str, seconds: float = 20) -> None:
    page.locator("[role=status]", has_text=text).wait_for(timeout=seconds * 1e3)


def until_page(page: Page, condition: Callable[[], object], seconds: float = 20) -> None:
    """Like `until`, but lets the page handle its events meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, page.locator("body").inner_text()
        page.wait_for_timeout(100)
