"""Hold a server under mixed load for a long time: does it grow, lose or mix up anything?

    python -m benchmarks.soak [--minutes 30] [--growth 1] [--kill-every 60] [OVERRIDES ...]

The server is `python -m crossbench.serve` with two worker processes and a small model. Clients send
requests of all sizes with and without deadlines, cancel some, send wrong ones, watch the metrics
and reset them; a page of the dashboard is open; a worker is killed again and again. Each score is
compared with the one that the quiet server gave. Memory is compared between the second fifth of the
run and the last one, by medians, in percent. It prints a table, writes it to outputs/soak.md and
ends with status 1 if something grew by more than --growth percent, was lost, or was mixed up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import psutil

from benchmarks.known_scores import take, texts
from benchmarks.race import machine
from benchmarks.served import Served, served
from benchmarks.soak_load import KINDS, Load
from benchmarks.soak_watch import Growth, Sample, growths, sample
from crossbench.dashboard.screenshot import BROWSER_ARGS, find_browser
from crossbench.models.sources import SeededModel
from crossbench.report.tables import markdown_table
from crossbench.serving.client import InferenceClient
from crossbench.settings.places import outputs_dir

WORKERS = 2
SAMPLE_S = 1.0
PAGE_S = 2.0  # between two visits of the page, without a browser
SEED = 7
# As many descriptors and threads may come and go with connections and replaced workers
SLACK = 4


async def killer(server: Served, every_s: float, killed: list[int]) -> None:
    """Kill a worker process every `every_s` seconds."""
    rng = random.Random(SEED)
    while True:
        await asyncio.sleep(every_s)
        if workers := server.workers():
            with contextlib.suppress(psutil.Error):
                victim = rng.choice(workers)
                victim.kill()
                killed.append(victim.pid)


async def sampler(server: Served, samples: list[Sample]) -> None:
    started_s = time.perf_counter()
    while True:
        samples.append(sample(server, time.perf_counter() - started_s))
        await asyncio.sleep(SAMPLE_S)


@contextlib.asynccontextmanager
async def open_page(url: str | None) -> AsyncIterator[str]:
    """Keep the page of the dashboard open, in Chromium if this machine has it."""
    if url is None:
        yield "no dashboard"
        return
    browser_path = find_browser()
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        browser_path = None
    if browser_path is None:
        task = asyncio.create_task(_visit(url))
        yield f"visited every {PAGE_S:g} s without a browser"
        task.cancel()
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=browser_path, args=list(BROWSER_ARGS)
        )
        page = await browser.new_page()
        await page.goto(url)
        await page.wait_for_selector(".chart svg path", state="attached")
        yield "open in Chromium"
        await browser.close()


async def _visit(url: str) -> None:
    while True:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(lambda: urlopen(url, timeout=10).read())
        await asyncio.sleep(PAGE_S)


async def soak(
    server: Served, seconds: float, kill_every_s: float
) -> tuple[Load, list[Sample], list[int], str]:
    """Load the server for `seconds`. Returns the load, the samples, the killed and the page."""
    async with InferenceClient(server.address) as client:
        sizes = [(40, 4), (12, 24), (3, 100)]  # requests, and the most passages of one
        asked = [text for number, size in enumerate(sizes) for text in texts(number, *size)]
        load = Load(server.address, await take(client, asked), SEED)
    samples: list[Sample] = []
    killed: list[int] = []
    async with open_page(server.dashboard) as page, asyncio.TaskGroup() as tasks:
        aside = [
            tasks.create_task(sampler(server, samples)),
            tasks.create_task(killer(server, kill_every_s, killed)),
        ]
        loading = tasks.create_task(load.run())
        await asyncio.sleep(seconds)
        load.stop()
        await loading
        for task in aside:
            task.cancel()
    async with InferenceClient(server.address) as client:  # it still answers, and rightly
        for item in load.known:
            reply = await client.score(item.query, item.passages)
            if item.difference(reply.scores) > 1e-3:
                load.mixed_up.append(f"after the load: {item.query!r}")
        metrics = await client.metrics()
        if metrics.requests_in_flight or metrics.queue_pairs:
            load.lost.append(f"{metrics.requests_in_flight} requests are in flight at the end")
    return load, samples, killed, page


def findings(load: Load, grown: Sequence[Growth], most_percent: float) -> list[str]:
    """Return what must not be."""
    found = [
        f"{item.name} grew by {item.percent:.2f} %"
        for item in grown
        if item.name == "all, MB" and item.percent > most_percent
    ]
    found += [
        f"{item.name}: {item.early:g} became {item.late:g}"
        for item in grown
        if not item.name.endswith("MB") and item.late > item.early + SLACK
    ]
    for what, items in (
        ("lost", load.lost),
        ("mixed up", load.mixed_up),
        ("unexplained", load.unexplained),
    ):
        if items:
            found.append(f"{len(items)} {what}, for example {items[0]}")
    return found


def tables(load: Load, grown: Sequence[Growth]) -> str:
    """Return the tables of the requests and of the processes."""
    rows = []
    for kind in dict.fromkeys(KINDS):
        ends = {status: count for (name, status), count in load.ends.items() if name == kind}
        text = ", ".join(f"{status} {count:,}" for status, count in sorted(ends.items()))
        rows.append((kind, f"{sum(ends.values()):,}", text))
    growth = [
        (item.name, f"{item.early:,.1f}", f"{item.late:,.1f}", f"{item.percent:+.2f} %")
        for item in grown
    ]
    return "\n\n".join(
        (
            markdown_table(("requests", "sent", "ends"), rows, "lrl"),
            markdown_table(
                ("median", "second fifth", "last fifth", "growth"), growth, "lrrr"
            ),
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--growth", type=float, default=1.0, help="percent of memory, at most")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds")
    parser.add_argument("overrides", nargs="*", help="for example backend=noop")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="crossbench-soak-") as name:
        folder = Path(name)
        model = SeededModel("soak", 0, 2, 64, 4, 128, 30_522, 512, None).fetch(folder)
        choices = [
            "backend=pytorch", "model=local", f"model.path={model.path}", "pool=processes",
            f"pool.workers={WORKERS}", "dashboard.port=0", *given.overrides,
        ]  # fmt: skip
        with served(choices, folder) as server:
            load, samples, killed, page = asyncio.run(
                soak(server, 60 * given.minutes, given.kill_every)
            )
            tracebacks = server.tracebacks()
    grown = growths(samples, WORKERS)
    found = findings(load, grown, given.growth)
    facts = [
        f"{given.minutes:g} minutes, {load.ends.total():,} requests, {len(killed)} workers killed, "
        f"{load.resets} resets, {load.snapshots:,} metrics watched, page {page}",
        f"lost {len(load.lost)}, mixed up {len(load.mixed_up)}, unexplained "
        f"{len(load.unexplained)}, slowest {load.slowest_s:.1f} s",
        *(f"INTERNAL {count} times: {reason}" for reason, count in load.reasons.most_common(5)),
        *(f"traceback in the log: {line}" for line in dict.fromkeys(tracebacks)),
        *(f"NOT AS IT SHOULD BE: {line}" for line in found),
    ]
    text = "\n\n".join((machine(), tables(load, grown), *facts))
    print(text)
    (outputs_dir() / "soak.md").write_text(text + "\n", "utf-8")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
