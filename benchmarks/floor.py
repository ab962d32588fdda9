"""Compare the server with an empty gRPC handler: how fast a device can the harness measure?

    python -m benchmarks.floor [--rounds 5] [--seconds 3] [--only one] [OVERRIDES ...]

An empty grpc.aio handler of the same service answers zeros. `crossbench.serve backend=noop` takes
every step that a real backend takes. An empty handler that passes each request to a thread and back
is the limit of servers that do not block their event loop. All are driven by the same synchronous
client in a process of its own, in turn. The tokenizers library encodes the same pairs on the same
cores. Cells with target=inprocess and target=process drive our server with crossbench's own client.

OVERRIDES are passed to crossbench (model=local model.path=DIR dataset=trec dataset.path=DIR).
`--only` keeps the comparisons whose name contains it. It writes outputs/floor.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants.cell import open_cell
from benchmarks.race import Contestant, Race, machine, ratios, start
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

EMPTY, NOOP, CACHED = "empty handler", "noop", "noop, cached tokens"
WORKER = "empty handler with a worker thread"
LIBRARY, INPROCESS, PROCESS = "tokenizers library", "target=inprocess", "target=process"
SYNCHRONOUS = (EMPTY, WORKER, NOOP, CACHED)  # servers that the synchronous client drives
LISTENS = "listening on "


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of `batch` pairs, `in_flight` at once."""

    batch: int
    in_flight: int

    @property
    def label(self) -> str:
        pairs = "1 pair" if self.batch == 1 else f"{self.batch} pairs"
        return f"{pairs}, {self.in_flight} in flight"


ONE_4, ONE_16, LONE, MANY_4 = Traffic(1, 4), Traffic(1, 16), Traffic(1, 1), Traffic(32, 4)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ratio of a metric of two contestants under the same traffic, and what it should be."""

    ours: str
    other: str
    traffic: Traffic
    metric: str
    goal: str

    @property
    def name(self) -> str:
        return f"{self.ours} / {self.other}, {self.traffic.label}, {self.metric}"


# What no server with a thread for its model can do better
LIMIT = "the limit"
COMPARISONS = (
    Comparison(WORKER, EMPTY, ONE_4, "requests_per_s", LIMIT),
    Comparison(WORKER, EMPTY, ONE_16, "requests_per_s", LIMIT),
    Comparison(WORKER, EMPTY, LONE, "p50_ms", LIMIT),
    Comparison(NOOP, EMPTY, ONE_4, "requests_per_s", "0.65 or more"),
    Comparison(NOOP, EMPTY, ONE_16, "requests_per_s", "0.65 or more"),
    Comparison(NOOP, EMPTY, LONE, "p50_ms", "1.4 or less"),
    Comparison(NOOP, EMPTY, MANY_4, "pairs_per_s", "0.35 or more"),
    Comparison(CACHED, EMPTY, MANY_4, "pairs_per_s", "0.6 or more"),
    Comparison(NOOP, LIBRARY, MANY_4, "pairs_per_s", "2 or more"),
    Comparison(INPROCESS, PROCESS, ONE_4, "pairs_per_s", "0.91 or more"),
    Comparison(INPROCESS, PROCESS, MANY_4, "pairs_per_s", "0.91 or more"),
    Comparison(INPROCESS, NOOP, ONE_4, "pairs_per_s", "0.91 or more"),
    Comparison(INPROCESS, NOOP, MANY_4, "pairs_per_s", "0.91 or more"),
    Comparison(PROCESS, NOOP, ONE_4, "pairs_per_s", "0.91 or more"),
    Comparison(PROCESS, NOOP, MANY_4, "pairs_per_s", "0.91 or more"),
)


def contestant_name(name: str, traffic: Traffic) -> str:
    return f"{name}, {traffic.label}"


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[str]:
    """Run a server and yield the address that it prints.

    Raises:
        SystemExit: the server ended before it was ready.
    """
    with start([sys.executable, "-m", *command], log) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if line.startswith(LISTENS):
                    yield line.removeprefix(LISTENS).split()[0]
                    return
            sys.exit(f"python -m {' '.join(command)} did not start, see {log}")
        finally:
            server.terminate()


def server_commands(overrides: Sequence[str]) -> dict[str, list[str]]:
    serve = ["crossbench.serve", "backend=noop", "server.port=0", "dashboard=none", *overrides]
    return {
        EMPTY: ["benchmarks.contestants.empty_server"],
        WORKER: ["benchmarks.contestants.empty_server", "worker"],
        NOOP: serve,
        CACHED: [*serve, "pipeline=infer"],
    }


def contestants(
    comparisons: Sequence[Comparison],
    addresses: dict[str, str],
    lists: Path,
    overrides: Sequence[str],
) -> list[Contestant]:
    """Return each contestant once, in the order of its first comparison."""
    pairs = [(name, entry.traffic) for entry in comparisons for name in (entry.ours, entry.other)]
    made = []
    for name, traffic in dict.fromkeys(pairs):
        cell = ("backend=noop", f"batch={traffic.batch}", f"concurrency={traffic.in_flight}")
        if name in SYNCHRONOUS:
            size = (str(traffic.batch), str(traffic.in_flight))
            arguments = ["raw_client", addresses[name], str(lists), *size]
        elif name == LIBRARY:
            arguments = ["tokenizers_library", *overrides, *cell]
        else:
            arguments = ["crossbench_server", *overrides, *cell, name]
        module, *rest = arguments
        command = [sys.executable, "-m", f"benchmarks.contestants.{module}", *rest]
        made.append(Contestant(contestant_name(name, traffic), command))
    return made


def report(
    comparisons: Sequence[Comparison], taken: dict[str, list[dict[str, float]]], about: str
) -> str:
    """Return tables with the ratios and with each contestant's own figures."""
    rows = []
    for entry in comparisons:
        ours = contestant_name(entry.ours, entry.traffic)
        other = contestant_name(entry.other, entry.traffic)
        middle, least, largest = ratios(taken, ours, other, entry.metric)
        rows.append((entry.name, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}", entry.goal))
    figures = []
    for name, rounds in taken.items():
        columns = []
        for metric in ("pairs_per_s", "p50_ms"):
            values = sorted(entry[metric] for entry in rounds if metric in entry)
            if values:
                middle = number(values[len(values) // 2])
                columns.append(f"{middle} ({number(values[0])} to {number(values[-1])})")
            else:
                columns.append("")
        figures.append((name, *columns))
    return "\n\n".join(
        [
            about,
            markdown_table(("ratio", "median", "rounds", "goal"), rows, "lrrl"),
            markdown_table(("", "pairs/s", "p50 (ms)"), figures, "lrr"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="", help="a part of the names of the comparisons")
    parser.add_argument("overrides", nargs="*", help="crossbench overrides")
    given = parser.parse_args()
    comparisons = [entry for entry in COMPARISONS if given.only in entry.name]
    if not comparisons:
        sys.exit(f"no comparison's name contains {given.only!r}")
    outputs_dir().mkdir(exist_ok=True)
    log = outputs_dir() / "floor.log"
    needed = {name for entry in comparisons for name in (entry.ours, entry.other)}
    with tempfile.TemporaryDirectory(prefix="crossbench-floor-") as folder:
        lists = Path(folder) / "lists.json"
        cell = open_cell([*given.overrides, "backend=noop"])
        lists.write_text(json.dumps([(entry.query, entry.passages) for entry in cell.lists]))
        with contextlib.ExitStack() as servers:
            addresses = {
                name: servers.enter_context(running(command, log))
                for name, command in server_commands(given.overrides).items()
                if name in needed
            }
            race = Race(contestants(comparisons, addresses, lists, given.overrides), log)
            try:
                if race.missing:
                    reasons = [f"{name}: {reason}" for name, reason in race.missing.items()]
                    sys.exit("\n".join(reasons))
                taken = race.run(given.rounds, given.seconds)
            finally:
                race.close()
    about = f"{machine()}; {given.rounds} rounds of {given.seconds:g} s"
    text = report(comparisons, taken, about)
    print(text)
    (outputs_dir() / "floor.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
