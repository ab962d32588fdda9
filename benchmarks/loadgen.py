"""Compare crossbench's own driver with MLCommons LoadGen, on one server, in turn.

    python -m benchmarks.loadgen --python .venv-loadgen/bin/python [--rounds 5] [--seconds 10]
        [--batch 8] [--share 0.5] [OVERRIDES ...]

LoadGen's scenarios are our loads: SingleStream is load=closed with one request in flight, Server is
load=poisson, at `share` of the throughput of Offline, which is load=offline. A sample is a request
of `batch` pairs of one query; both drivers have the same requests, ours in a random order, those of
LoadGen drawn at random. Latency is measured from the time at which a request was due, by both.

OVERRIDES are passed to the server and choose the texts (backend=onnx quant=int8 model=local
model.path=DIR dataset=trec dataset.path=DIR). `make loadgen` builds the environment and runs this.
It writes outputs/loadgen.md and outputs/loadgen.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.contestants.cell import open_cell
from benchmarks.race import Contestant, Race, machine
from benchmarks.served import served
from crossbench.measure.intervals import t_95
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.types import QueryPassages
from crossbench.wording import number

OURS, LOADGEN = "crossbench", "LoadGen"
SCENARIOS: Mapping[str, tuple[str, ...]] = {
    "SingleStream": ("load=closed", "concurrency=1"),
    "Server": ("load=poisson",),
    "Offline": ("load=offline",),
}
METRICS = {"requests_per_s": "requests/s", "p50_ms": "p50 (ms)", "p90_ms": "p90 (ms)",
           "p99_ms": "p99 (ms)"}  # fmt: skip

Taken = Mapping[str, Sequence[Mapping[str, float]]]


def write_lists(lists: Sequence[QueryPassages], batch: int, path: Path) -> None:
    """Write [query, [passage, ...]] with `batch` passages for each request, in random order.

    Drivers that take them in order and drivers that draw them then have the same lengths of texts.
    """
    requests = [
        (entry.query, list(entry.passages[start : start + batch]))
        for entry in lists
        for start in range(0, len(entry.passages) - batch + 1, batch)
    ]
    random.Random(1).shuffle(requests)
    path.write_text(json.dumps(requests))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean of rounds and its 95 % interval (Student's t of logarithms)."""
    logs = np.log(values)
    middle, half = logs.mean(), t_95(len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    low, mean, high = np.exp([middle - half, middle, middle + half]).tolist()
    return mean, low, high


def named(driver: str, scenario: str) -> str:
    return f"{driver}, {scenario}"


def contestants(
    address: str, lists: Path, python: str, batch: int, rates: Mapping[str, float]
) -> list[Contestant]:
    """Return both drivers for each scenario; `rates` are requests/s."""
    made = []
    for scenario, load in SCENARIOS.items():
        rate = str(rates[scenario])
        own = [*load, f"batch={batch}", *([f"load.rate={rate}"] if scenario == "Server" else [])]
        ours = [sys.executable, "-m", "benchmarks.contestants.our_client", address, str(lists)]
        other = [python, "-m", "benchmarks.contestants.loadgen_client", address, str(lists)]
        made.append(Contestant(named(OURS, scenario), [*ours, rate, *own]))
        made.append(Contestant(named(LOADGEN, scenario), [*other, str(batch), scenario, rate]))
    return made


def probe(address: str, lists: Path, batch: int, seconds: float, log: Path) -> float:
    """Return the requests/s of our offline load, from which the rates follow."""
    load = ["load=closed", "concurrency=16", f"batch={batch}"]
    command = [sys.executable, "-m", "benchmarks.contestants.our_client", address, str(lists), "1"]
    name = "a probe of the throughput"
    race = Race([Contestant(name, [*command, *load])], log)
    try:
        if race.missing:
            sys.exit(f"{name}: {race.missing[name]}")
        return race.run(1, seconds)[name][0]["requests_per_s"]
    finally:
        race.close()


def report(taken: Taken, about: str) -> str:
    """Return a table with the interval of each metric, and of the ratio of the two drivers."""
    rows = []
    for scenario in SCENARIOS:
        ours, others = taken[named(OURS, scenario)], taken[named(LOADGEN, scenario)]
        for key, label in METRICS.items():
            cells = []
            for entries in (ours, others):
                mean, low, high = interval([entry[key] for entry in entries])
                cells.append(f"{number(mean)} ({number(low)} to {number(high)})")
            each = [a[key] / b[key] for a, b in zip(ours, others, strict=True)]
            ratio, low, high = interval(each)
            same = "yes" if low <= 1 <= high else "no"
            rows.append((scenario, label, *cells, f"{ratio:.3f} ({low:.3f} to {high:.3f})", same))
    header = ("scenario", "metric", OURS, LOADGEN, "ratio", "1 is inside")
    return "\n\n".join([about, markdown_table(header, rows, "llrrrl")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="an interpreter that has LoadGen")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=8, help="pairs per request")
    parser.add_argument("--share", type=float, default=0.5, help="of the throughput, for Server")
    parser.add_argument("overrides", nargs="*", help="crossbench overrides")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("an interval needs at least 2 rounds: give --rounds 5")
    folder = outputs_dir()
    folder.mkdir(exist_ok=True)
    log = folder / "loadgen.log"
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        lists = Path(place) / "lists.json"
        write_lists(open_cell([*given.overrides, "backend=noop"]).lists, given.batch, lists)
        server = stack.enter_context(served(["dashboard=none", *given.overrides]))
        capacity = probe(server.address, lists, given.batch, given.seconds, log)
        rates = {"SingleStream": capacity, "Server": capacity * given.share, "Offline": capacity}
        race = Race(contestants(server.address, lists, given.python, given.batch, rates), log)
        try:
            if race.missing:
                sys.exit("\n".join(f"{name}: {why}" for name, why in race.missing.items()))
            taken = race.run(given.rounds, given.seconds)
        finally:
            race.close()
    about = (
        f"{machine()}; {given.rounds} rounds of {given.seconds:g} s, requests of {given.batch} "
        f"pairs, Server at {number(rates['Server'])} requests/s; {' '.join(given.overrides)}"
    )
    text = report(taken, about)
    print(text)
    (folder / "loadgen.md").write_text(text + "\n", "utf-8")
    (folder / "loadgen.json").write_text(json.dumps(taken, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
