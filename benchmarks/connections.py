"""Do a thousand connections that others hold slow requests down, and when are bad ones closed?

    python -m benchmarks.connections [--rounds 7] [--seconds 5] [--count 1000]

`crossbench.serve backend=noop` answers a closed loop of small requests, in turn without other
connections, with COUNT silent ones (nothing is sent) and with COUNT idle ones (clients of gRPC).
Each round takes all three in random order; a ratio compares with the same round. After that,
connections stop halfway in each way of `tests.helpers.stalled`, with clients that acknowledge
settings and pings and with clients that do not. It writes outputs/connections.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.floor import running
from benchmarks.race import machine, start
from crossbench.report.tables import markdown_table
from crossbench.serving.client import InferenceClient
from crossbench.serving.connections import GRACE_S
from crossbench.settings.places import outputs_dir
from crossbench.wording import number
from tests.helpers.stalled import STALLS, closed_after, stalled

KINDS = ("none", "silent", "idle")
IN_FLIGHT = 4
SETTLE_S = 1.0
IDLE_S, AGE_S = 30, 60  # of the server whose connections stop halfway; the defaults are longer
PATIENCE_S = 100.0


@contextlib.contextmanager
def held(address: str, kind: str, count: int, log: Path) -> Iterator[list[int]]:
    """Hold connections; yields the list of their number, and at the end that of the open ones."""
    numbers: list[int] = []
    if kind == "none":
        yield numbers
        return
    module = "benchmarks.contestants.connection_holder"
    with start([sys.executable, "-m", module, address, kind, str(count)], log) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        numbers.append(int(holder.stdout.readline()))
        yield numbers
        holder.stdin.close()
        numbers.append(int(holder.stdout.readline()))


async def latencies_ms(address: str, seconds: float) -> list[float]:
    """Return the latencies of a closed loop of requests of one pair."""
    found: list[float] = []
    async with InferenceClient(address) as client:
        await client.score("a query", ["a passage"])
        end = time.perf_counter() + seconds

        async def user() -> None:
            while (started := time.perf_counter()) < end:
                await client.score("a query", ["a passage"])
                found.append((time.perf_counter() - started) * 1e3)

        await asyncio.gather(*(user() for _ in range(IN_FLIGHT)))
    return found


def compare(address: str, rounds: int, seconds: float, count: int, log: Path) -> str:
    """Return the table of p99 with and without other connections."""
    taken: dict[str, list[tuple[float, float, int]]] = {kind: [] for kind in KINDS}
    still_open: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for turn in range(rounds):
        for kind in random.sample(KINDS, len(KINDS)):
            print(f"round {turn + 1}/{rounds}: {kind}", file=sys.stderr, flush=True)
            with held(address, kind, count, log) as numbers:
                time.sleep(SETTLE_S)
                found = asyncio.run(latencies_ms(address, seconds))
            p50, p99 = np.percentile(found, [50, 99])
            taken[kind].append((float(p50), float(p99), len(found)))
            still_open[kind] += numbers[1:]
            time.sleep(SETTLE_S)
    rows = []
    for kind in KINDS:
        p50s, p99s, counts = zip(*taken[kind], strict=True)
        ratios = [ours / base[1] for ours, base in zip(p99s, taken["none"], strict=True)]
        spread = f"{number(median(ratios))} ({number(min(ratios))} to {number(max(ratios))})"
        kept = f"{min(still_open[kind])} of {count}" if still_open[kind] else ""
        rows.append(
            (kind, number(median(p50s)), number(median(p99s)), spread, f"{sum(counts):,}", kept)
        )
    header = ("others", "p50 (ms)", "p99 (ms)", "p99 / without", "requests", "open at the end")
    return markdown_table(header, rows, "lrrrrr")


def stalls(address: str) -> str:
    """Return the table of when connections that stop halfway are closed."""
    jobs = [(name, answers) for name in STALLS for answers in (True, False)]
    with ThreadPoolExecutor(len(jobs)) as threads:
        found = threads.map(
            lambda job: closed_after(stalled(address, STALLS[job[0]]), PATIENCE_S, answers=job[1]),
            jobs,
        )
        closed = dict(zip(jobs, found, strict=True))

    def text(seconds: float | None) -> str:
        return f"not within {PATIENCE_S:g} s" if seconds is None else f"{seconds:.1f} s"

    rows = [(name, text(closed[name, True]), text(closed[name, False])) for name in STALLS]
    header = ("the client has sent", "closed, if it acknowledges", "closed, if it does not")
    return markdown_table(header, rows, "lrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    log = Path(tempfile.mkdtemp()) / "connections.log"
    serve = ["crossbench.serve", "backend=noop", "server.port=0", "dashboard=none"]
    with running(serve, log) as address:
        table = compare(address, options.rounds, options.seconds, options.count, log)
    print(table, flush=True)
    bounds = [f"server.connections.idle_s={IDLE_S}", f"server.connections.age_s={AGE_S}"]
    with running([*serve, *bounds], log) as address:
        closed = stalls(address)
    text = (
        f"# Connections\n\n{machine()}\n\n{options.count} connections of others, "
        f"{options.rounds} rounds of {options.seconds:g} s, {IN_FLIGHT} requests in flight:\n\n"
        f"{table}\n\nConnections that stop halfway ({', '.join(bounds)}; requests have {GRACE_S} s "
        f"more to end):\n\n{closed}\n"
    )
    print(closed)
    target = outputs_dir() / "connections.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
