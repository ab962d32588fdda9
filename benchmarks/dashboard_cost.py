"""Measure how much the live dashboard reduces the throughput of the server, interleaved.

    python -m benchmarks.dashboard_cost [--rounds 6] [--seconds 10] [OVERRIDES ...]

The same warm server and client are measured in turn without a dashboard, with a dashboard whose
page is not open, and with the page open in Chromium on the same machine. OVERRIDES are passed to
crossbench (backend=onnx model=local model.path=DIR dataset=trec dataset.path=DIR). Since a busy
machine makes the ratios noisy, the report also has the CPU time of the dashboard and the browser,
which is an upper bound of their cost. It needs Playwright and Chromium and writes
outputs/dashboard_cost.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import sync_playwright

from benchmarks.race import Contestant, Race, machine, ratios, speed_table
from crossbench.dashboard.journal import FileJournal
from crossbench.dashboard.process import JOURNAL_FILE, WebDashboard
from crossbench.dashboard.screenshot import BROWSER_ARGS, find_browser
from crossbench.events import ServerListens
from crossbench.measure.probes import usable_cores
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir

PORT = 50990
SETTLE_S = 4.0  # until the page and the machine's caches are in a steady state


@contextlib.contextmanager
def no_dashboard() -> Iterator[None]:
    yield


@contextlib.contextmanager
def dashboard() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / JOURNAL_FILE
        FileJournal(journal).write(ServerListens(f"127.0.0.1:{PORT}", {}))
        web = WebDashboard("web", "127.0.0.1", 0, False, None, 16)
        web.start(journal)
        url = web.ready()
        assert url is not None
        try:
            yield url
        finally:
            web.close()


@contextlib.contextmanager
def open_page() -> Iterator[None]:
    with dashboard() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=list(BROWSER_ARGS)
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.wait_for_selector(".chart svg path", state="attached")
        yield
        browser.close()


def cpu_s(roots: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds of these processes and their running descendants."""
    total_s = 0.0
    for process in [*roots, *(child for root in roots for child in root.children(recursive=True))]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "overrides", nargs="*", help="crossbench overrides, for example model=local"
    )
    given = parser.parse_args()
    overrides = given.overrides
    served = [*overrides, f"server.port={PORT}"]
    command = [sys.executable, "-m", "benchmarks.contestants.crossbench_server", *served]
    race = Race([Contestant("server", command)], outputs_dir() / "dashboard_cost.log")
    if race.missing:
        sys.exit(str(race.missing))
    server_pids = {child.pid for child in psutil.Process().children()}
    variants: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
        "no dashboard": no_dashboard,
        "dashboard, no page": dashboard,
        "open page": open_page,
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(given.rounds):
        # Reverse the order in every second round, so that a slow drift of the machine cancels out
        for name in sorted(variants, reverse=bool(turn % 2)):
            with variants[name]():
                time.sleep(SETTLE_S)
                children = psutil.Process().children()
                others = [child for child in children if child.pid not in server_pids]
                before_s, started_s = cpu_s(others), time.perf_counter()
                taken[name] += race.run(1, given.seconds)["server"]
                spent_s, wall_s = cpu_s(others) - before_s, time.perf_counter() - started_s
                taken[name][-1]["cores"] = spent_s / wall_s
    race.close()
    rows = []
    for name in ("dashboard, no page", "open page"):
        middle, least, largest = ratios(taken, name, "no dashboard")
        share = median(entry["cores"] for entry in taken[name]) / usable_cores()
        spread = f"{least:.3f} to {largest:.3f}"
        rows.append((f"{name} / no dashboard", f"{middle:.3f}", spread, f"{100 * share:.2f} %"))
    text = "\n\n".join(
        [
            f"{machine()}; {given.rounds} rounds of {given.seconds:g} s",
            speed_table(taken),
            markdown_table(
                ("throughput", "median", "rounds", "share of all cores taken"), rows, "lrrr"
            ),
        ]
    )
    print(text)
    (outputs_dir() / "dashboard_cost.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
