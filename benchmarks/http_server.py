"""Compare requests to the HTTP port with those to gRPC, on a server without a model.

    python -m benchmarks.http_server [--rounds 5] [--seconds 2] [--before CHECKOUT] [OVERRIDES ...]

The same texts go to POST /rerank and to Score, with backend=noop, from synchronous clients in
processes of their own, in turn. "gRPC, HTTP off" is a server without an HTTP port; with --before,
the same server of another checkout is measured too, so that the cost of the feature when it is off
can be seen. The clients differ, so the server's CPU time per request is the fairest ratio.

OVERRIDES are passed to crossbench (model=local model.path=DIR dataset=trec dataset.path=DIR). It
writes outputs/http_server.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.contestants.cell import open_cell
from benchmarks.race import Contestant, Race, machine, ratios
from benchmarks.served import served
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

HTTP, GRPC, OFF, BEFORE = "HTTP", "gRPC", "gRPC, HTTP off", "gRPC, before"
TRAFFIC = ((1, 4), (1, 1), (32, 4))  # pairs of a request, requests in flight
METRICS = {"requests_per_s": "requests/s", "p50_ms": "p50", "cpu_us": "server CPU per request"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client sends its requests: the address, and the server's process."""

    client: str
    address: str
    pid: int


def contestant(name: str, where: Address, lists: Path, batch: int, in_flight: int) -> Contestant:
    arguments = (where.address, str(lists), str(batch), str(in_flight), str(where.pid))
    module = f"benchmarks.contestants.{where.client}"
    return Contestant(named(name, batch, in_flight), [sys.executable, "-m", module, *arguments])


def named(name: str, batch: int, in_flight: int) -> str:
    return f"{name}, {batch} x {in_flight}"


def start_servers(
    stack: contextlib.ExitStack, overrides: Sequence[str], before: Path | None
) -> dict[str, Address]:
    common = ["backend=noop", "dashboard=none", *overrides]
    both = stack.enter_context(served([*common, "server.http.port=0"]))
    found = re.search(r"listening on (http://\S+)", both.log.read_text("utf-8"))
    assert found is not None
    off = stack.enter_context(served(common))
    servers = {
        HTTP: Address("raw_http", found[1], both.process.pid),
        GRPC: Address("raw_client", both.address, both.process.pid),
        OFF: Address("raw_client", off.address, off.process.pid),
    }
    if before is not None:
        old = stack.enter_context(served(common, checkout=before))
        servers[BEFORE] = Address("raw_client", old.address, old.process.pid)
    return servers


def report(taken: dict[str, list[dict[str, float]]], with_before: bool, about: str) -> str:
    rows, figures = [], []
    pairs = [(HTTP, GRPC), (GRPC, OFF), *([(OFF, BEFORE)] if with_before else [])]
    for batch, in_flight in TRAFFIC:
        for ours, other in pairs:
            for key, label in METRICS.items():
                names = named(ours, batch, in_flight), named(other, batch, in_flight)
                middle, least, largest = ratios(taken, *names, key)
                traffic = f"{batch} x {in_flight}"
                spread = f"{least:.2f} to {largest:.2f}"
                rows.append((f"{ours} / {other}", traffic, label, f"{middle:.2f}", spread))
    for name, rounds in taken.items():
        values = [number(median(entry[key] for entry in rounds)) for key in METRICS]
        figures.append((name, *values))
    return "\n\n".join(
        [
            f"{about}; pairs per request x requests in flight",
            markdown_table(("ratio", "traffic", "of", "median", "rounds"), rows, "lllrr"),
            markdown_table(("", "requests/s", "p50 (ms)", "CPU (us)"), figures, "lrrr"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--before", type=Path, help="another checkout of crossbench")
    parser.add_argument("overrides", nargs="*", help="crossbench overrides")
    given = parser.parse_args()
    outputs_dir().mkdir(exist_ok=True)
    log = outputs_dir() / "http_server.log"
    with (
        tempfile.TemporaryDirectory(prefix="crossbench-http-") as folder,
        contextlib.ExitStack() as stack,
    ):
        lists = Path(folder) / "lists.json"
        cell = open_cell([*given.overrides, "backend=noop"])
        lists.write_text(json.dumps([(entry.query, entry.passages) for entry in cell.lists]))
        servers = start_servers(stack, given.overrides, given.before)
        race = Race(
            [
                contestant(name, where, lists, *traffic)
                for traffic in TRAFFIC
                for name, where in servers.items()
            ],
            log,
        )
        try:
            if race.missing:
                sys.exit("\n".join(f"{name}: {why}" for name, why in race.missing.items()))
            taken = race.run(given.rounds, given.seconds)
        finally:
            race.close()
    about = f"{machine()}; {given.rounds} rounds of {given.seconds:g} s"
    text = report(taken, given.before is not None, about)
    print(text)
    (outputs_dir() / "http_server.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
