"""Measure what a server still does for its clients at three times its capacity.

    python -m benchmarks.overload [--seconds 60] [--batch 4] [--rounds 1] [OVERRIDES ...]

`crossbench.serve OVERRIDES` runs in one process, a client in another. The capacity is the most that
closed loops reach, measured before and after each storm. In a storm, requests arrive at random, at
three times the capacity: without deadlines, with deadlines of ten unloaded latencies, and with
every second client cancelling after a tenth of one. Goodput is what was answered to clients
that still waited, in time. It writes outputs/overload.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.contestants.cell import open_cell
from benchmarks.contestants.storm import Phase
from benchmarks.race import machine, start
from benchmarks.served import served
from crossbench.report.tables import markdown_table
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

OVERLOAD = 3.0  # times the capacity
LOOPS = (2, 4, 8)  # requests in flight of the closed loops
CALIBRATION_S = 5.0


class Client:
    """The client process."""

    def __init__(self, address: str, lists: Path, batch: int, log: Path) -> None:
        module = "benchmarks.contestants.storm"
        command = [sys.executable, "-m", module, address, str(lists), str(batch)]
        self._process = start(command, log)
        self._batch = batch
        self._read()

    def run(self, phase: Phase) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(phase)) + "\n")
        self._process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self._read())
        outcome["pairs_per_s"] = outcome["statuses"].get("OK", 0) * self._batch / outcome["seconds"]
        return outcome

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the client ended: see outputs/overload.log")
        return line


@dataclass(frozen=True)
class Storm:
    """A phase of overload, and the share of its requests that matter to their client."""

    name: str
    phase: Phase
    matters: float = 1.0


def metrics(address: str, reset: bool = False) -> pb.Metrics:
    async def ask() -> pb.Metrics:
        async with InferenceClient(address) as client:
            found = await client.metrics()
            if reset:
                await client.reset_metrics()
            return found

    return asyncio.run(ask())


def capacity(client: Client) -> float:
    """Return the most requests/s of the closed loops."""
    outcomes = [client.run(Phase(CALIBRATION_S, in_flight=loop)) for loop in LOOPS]
    found = [outcome["statuses"].get("OK", 0) / outcome["seconds"] for outcome in outcomes]
    print("closed loops:", *(f"{rate:.1f}" for rate in found), file=sys.stderr, flush=True)
    return max(found)


def measure(client: Client, address: str, seconds: float, batch: int) -> list[tuple[str, ...]]:
    rows = []
    lone = client.run(Phase(CALIBRATION_S, in_flight=1))
    unloaded_s = lone["latencies_ms_p50"] * 1e-3
    storms = (
        Storm("no deadline", Phase(seconds)),
        Storm("deadline of 10 latencies", Phase(seconds, deadline_s=10 * unloaded_s)),
        Storm(
            "every 2nd cancels after 0.1 latencies",
            Phase(seconds, cancelling=0.5, cancel_s=0.1 * unloaded_s),
        ),
    )
    for storm in storms:
        before, lone = capacity(client), client.run(Phase(CALIBRATION_S, in_flight=1))
        rss_mb = metrics(address, reset=True).rss_mb
        phase = Phase(**{**asdict(storm.phase), "per_s": OVERLOAD * before})
        outcome = client.run(phase)
        after = metrics(address)
        lone_after = client.run(Phase(1.0, in_flight=1))
        both = mean((before, capacity(client)))
        good = outcome["statuses"].get("OK", 0) / outcome["seconds"]
        rows.append(
            (
                storm.name,
                f"{good / both:.2f}",
                f"{after.wasted_pairs / max(after.batch_pairs, 1):.1%}",
                f"{number(outcome['latencies_ms_p99'])} / {number(lone['latencies_ms_p99'])} ms",
                f"{after.rss_mb - rss_mb:+.0f} MB",
                f"{lone_after['latencies_ms_p50'] / lone['latencies_ms_p50']:.2f}",
                ", ".join(f"{n} {name}" for name, n in sorted(outcome["statuses"].items())),
                ", ".join(
                    f"{n} {name}"
                    for name, n in [
                        ("OK", after.requests_ok),
                        *sorted(after.requests_failed.items()),
                    ]
                ),
                f"{number(both)} requests/s",
                f"{number(outcome['late_ms_p99'])} ms",
            )
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="crossbench overrides of the server")
    given = parser.parse_args()
    log = outputs_dir() / "overload.log"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder) / "lists.json"
        cell = open_cell(given.overrides)
        lists.write_text(json.dumps([(item.query, item.passages) for item in cell.lists]))
        with served([*given.overrides, "dashboard=none"]) as server:
            client = Client(server.address, lists, given.batch, log)
            try:
                for turn in range(given.rounds):
                    print(f"round {turn + 1}/{given.rounds}", file=sys.stderr, flush=True)
                    rows += measure(client, server.address, given.seconds, given.batch)
            finally:
                client.close()
    header = (
        "storm at 3 times the capacity", "goodput / capacity", "work for nobody",
        "p99 accepted / unloaded", "memory", "lone p50 after / before", "at the client",
        "at the server", "capacity", "sent late (p99)",
    )  # fmt: skip
    text = f"{machine()}\n\n{markdown_table(header, rows, 'lrrrrrllrr')}\n"
    (outputs_dir() / "overload.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
