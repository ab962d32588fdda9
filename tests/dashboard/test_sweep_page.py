"""The page of a sweep in Chromium: on a desk and on a phone, while it runs and afterwards."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossbench.dashboard.journal import FileJournal
from crossbench.dashboard.process import JOURNAL_FILE
from crossbench.events import CellEnded, RunEnded
from tests.helpers.dashboards import RunningDashboard, SweepJournal, figures, running_dashboard
from tests.helpers.pages import opened, tile, until_page, wait_for_status

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESK, PHONE = 1280, 390
RUNNING = 17  # cells of the sweep of 24 that have started
# Texts of a drawing that overlap another one; a pixel of tolerance
OVERLAPS = """
svg => {
    const shown = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
    const boxes = shown.map(text => text.getBoundingClientRect());
    const found = [];
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, k) => {
        const apart = a.right - 1 <= b.left || b.right - 1 <= a.left;
        if (!apart && a.bottom - 1 > b.top && b.bottom - 1 > a.top)
            found.push([shown[i].textContent, shown[i + 1 + k].textContent]);
    }));
    return found;
}
"""
# Cells of the table whose text is wider than they are, or outside the window
CUT_OFF = """
table => [...table.querySelectorAll("th, td")]
    .filter(cell => getComputedStyle(cell).display !== "none" && cell.offsetParent)
    .filter(cell => cell.scrollWidth > cell.clientWidth + 1
        || cell.getBoundingClientRect().right > innerWidth)
    .map(cell => cell.textContent)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    """The page of a sweep of 24 cells, of which the 17th is measured; the 12th ended at once."""
    folder = tmp_path_factory.mktemp("running")
    SweepJournal(folder / JOURNAL_FILE, 24, instant=11).write(RUNNING, time.time())
    with running_dashboard(folder) as dashboard:
        yield dashboard


def assert_nothing_overlaps(page: Page, width: int) -> None:
    """Check that no text of the page covers another one, and that nothing is cut off."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.locator(".chart:visible").all():
        chart.scroll_into_view_if_needed()
        assert chart.locator("svg").evaluate(OVERLAPS) == [], chart.get_attribute("data-chart")
        legend = chart.locator("xpath=preceding-sibling::p")
        drawn, keys = chart.bounding_box(), legend.bounding_box()
        assert drawn is not None
        assert keys is not None
        assert keys["y"] + keys["height"] <= drawn["y"] + 1
        assert keys["x"] + keys["width"] <= width
    assert page.locator(".cells table").evaluate(CUT_OFF) == []


def is_within(page: Page, inner: str, outer: str) -> bool:
    boxes = [page.locator(selector).bounding_box() for selector in (inner, outer)]
    assert None not in boxes
    (row, table) = (box for box in boxes if box is not None)
    ends = [box["y"] + box["height"] for box in (row, table)]
    return bool(row["y"] >= table["y"] and ends[0] <= ends[1] + 1)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(DESK, "light", marks=pytest.mark.slow),
        pytest.param(DESK, "dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", marks=pytest.mark.slow),
        (PHONE, "dark"),
    ],
)
def test_a_running_sweep_of_24_cells_fits_each_screen(
    running: RunningDashboard, browser: Browser, width: int, scheme: str
) -> None:
    with opened(browser, running.url, width, scheme) as page:
        wait_for_status(page, "cell 17 of 24: measuring")
        assert page.locator(".cell h2").inner_text().startswith("Cell 17 of 24: batch=17 ")
        assert tile(page, "Throughput") == "95.0"
        assert page.locator(".config dd").all_inner_texts()[3] == "17"
        until_page(page, lambda: is_within(page, "tr.running", ".cells"))
        if width == DESK:
            row = page.locator("tr.running").bounding_box()
            assert row is not None
            assert row["y"] + row["height"] <= 800  # without scrolling the page
        # Each finished cell has its figures, also as a card
        numbers = page.locator("tr:not(.why)").nth(3).locator("td[data-heading]")
        assert [text for text in numbers.all_inner_texts() if not re.search(r"\d", text)] == []
        assert numbers.count() == 5
        until_page(page, lambda: page.locator("[data-chart=cells] svg path").count() > 24)
        assert_nothing_overlaps(page, width)


@pytest.mark.slow
def test_a_chosen_cell_has_its_own_tiles_and_configuration(
    running: RunningDashboard, browser: Browser
) -> None:
    with opened(browser, running.url) as page:
        table = page.locator(".cells")
        table.locator("button[data-cell='2']").press("Enter")
        until_page(page, lambda: "Cell 3 of 24" in page.locator(".cell").inner_text())
        numbers = [
            text.replace("\n", "")
            for text in table.locator("tr").nth(3).locator("td").all_inner_texts()
        ]
        shown = ("Throughput", "Latency p50", "Latency p95", "Latency p99", "Memory, peak")
        assert [tile(page, label) for label in shown] == numbers[1:]
        assert page.locator(".config dd").all_inner_texts()[3] == "3"
        assert table.locator("button[aria-pressed=true]").inner_text().startswith("3. ")
        table.locator("button[data-cell='16']").click()
        until_page(page, lambda: "Cell 17 of 24" in page.locator(".cell").inner_text())


@pytest.mark.slow
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_page_follows_the_next_cell_and_an_interruption(
    tmp_path: Path, browser: Browser, width: int
) -> None:
    journal = SweepJournal(tmp_path / JOURNAL_FILE, 6, instant=3)
    journal.write(started=4, now_s=time.time())
    with running_dashboard(tmp_path) as dashboard, opened(browser, dashboard.url, width) as page:
        wait_for_status(page, "waiting for the next cell")
        # In view is the last one that was measured, although none is running
        until_page(page, lambda: is_within(page, "tr:has([aria-pressed=true])", ".cells"))
        assert "4 of 6 cells done" in page.get_by_label("Sweep").first.inner_text()
        journal.write(started=5, now_s=time.time())
        wait_for_status(page, "cell 5 of 6: measuring")
        assert "Cell 5 of 6" in page.locator(".cell").inner_text()
        cell = FileJournal(journal.path, 4)
        cell.write(
            CellEnded("failed", "interrupted by Ctrl-C after 100 requests", True, figures(4))
        )
        wait_for_status(page, "interrupted after 4 of 6 cells; the report is being written")
        FileJournal(journal.path).write(RunEnded("report: r.md", True))
        wait_for_status(page, "interrupted after 4 of 6 cells; report: r.md")
        sweep = page.get_by_label("Sweep").first.inner_text()
        assert "left" not in sweep
        assert f"python -m crossbench.dashboard sweep={tmp_path}" in sweep
        assert page.locator(".cells .badge").last.inner_text() == "interrupted"
        assert_nothing_overlaps(page, width)


@pytest.fixture(scope="module")
def stored_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a sweep whose process has ended, started from the command line."""
    folder = tmp_path_factory.mktemp("stored")
    journal = SweepJournal(folder / JOURNAL_FILE, 6, instant=3)
    journal.write(started=6, now_s=time.time())
    FileJournal(journal.path, 5).write(CellEnded("finished", None, False, figures(5)))
    FileJournal(journal.path).write(RunEnded("report: somewhere else", False))
    command = [sys.executable, "-m", "crossbench.dashboard", f"sweep={folder}", "dashboard.port=0"]
    process: subprocess.Popen[Any] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found
    yield found[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_sweep_is_shown_after_its_process_has_ended(
    stored_url: str, browser: Browser, width: int, scheme: str
) -> None:
    with opened(browser, stored_url, width, scheme) as page:
        wait_for_status(page, "6 of 6 cells, complete; results: ")
        assert (
            "6 of 6 cells, complete · 1 unsupported"
            in page.get_by_label("Sweep").first.inner_text()
        )
        assert page.locator("tr:not(.why) .badge").all_inner_texts().count("finished") == 5
        assert page.locator("[data-chart=throughput]").is_hidden()
        page.locator("[data-chart=cells] svg text", has_text="1,500").wait_for()
        assert_nothing_overlaps(page, width)
