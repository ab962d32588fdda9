"""Measure what requests for the page cost if no browser opens it.

    python -m benchmarks.page_requests [--requests 300] [--rounds 3]

A fresh dashboard gets `GET /` and, in turn, `GET /metrics`, which builds no page: the ratio does
not depend on how busy the machine is. Memory must not grow with the rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import httpx
import psutil

from crossbench.dashboard.process import JOURNAL_FILE, WebDashboard
from crossbench.report.tables import markdown_table


def taken_s(client: httpx.Client, path: str, requests: int) -> float:
    started_s = time.perf_counter()
    for _ in range(requests):
        client.get(path).raise_for_status()
    return time.perf_counter() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        web = WebDashboard("web", "127.0.0.1", 0, False, None, 16)
        web.start(Path(folder) / JOURNAL_FILE)
        url = web.ready()
        assert url is not None
        (process,) = psutil.Process().children()
        rows, ratios = [], []
        with httpx.Client(base_url=url, timeout=60) as client:
            for turn in range(given.rounds):
                page_s, metrics_s = (
                    taken_s(client, path, given.requests) for path in ("/", "/metrics")
                )
                ratios.append(page_s / metrics_s)
                resident_mb = process.memory_info().rss / 1e6
                rows.append((str(turn + 1), f"{page_s:.2f}", f"{metrics_s:.2f}",
                             f"{resident_mb:.0f}"))  # fmt: skip
        web.close()
    heads = ("round", f"{given.requests} × /, s", f"{given.requests} × /metrics, s", "RSS, MB")
    print(markdown_table(heads, rows, "rrrr"))
    print(f"\n/ takes {median(ratios):.2f} times as long as /metrics (median of the rounds)")


if __name__ == "__main__":
    main()
