"""Compare replicas behind Ray Serve with our own server's worker processes on as many cores.

    python -m benchmarks.ray_serve [--rounds 5] [--seconds 3] [--backends noop] [OVERRIDES ...]

In each round, every server is started, sent the same texts by a synchronous client, and ended, so
that none runs beside another one. `processes N` is pool=processes with N workers of one thread,
`ray N` is target=ray_serve with N replicas of one core. The CPU time per request is that of all
processes of the server; of Ray's, the proxy and the replicas are listed too.

OVERRIDES are passed to crossbench (model=local model.path=DIR dataset=trec dataset.path=DIR). It
writes outputs/ray_serve.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.contestants.cell import open_cell
from benchmarks.race import Contestant, Race, machine, ratios
from benchmarks.served import Served, served
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

REPLICAS = (1, 2)
OURS, RAY = "processes", "ray"
OVERRIDES = {
    OURS: "pool=processes pool.workers={n} pool.threads=1",
    RAY: "target=ray_serve target.replicas={n} target.cpus=1",
}
# How Ray names its processes
PARTS = {"proxy": "ray::ProxyActor", "replicas": "ray::ServeReplica"}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Pairs per request, and how many requests are in flight."""

    batch: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.batch} x {self.in_flight}"


WITH_MODEL = 3.0  # a model answers so few requests that they need more time
LONE = Traffic(1, 1)
TRAFFIC = {
    "noop": (LONE, Traffic(1, 16), Traffic(32, 16)),
    "packed": (Traffic(32, 4),),
}

RATIO_HEADS = ("backend", "traffic", "ratio", "of", "median", "rounds")

Figures = dict[str, float]
Taken = dict[str, list[Figures]]


def cpu_s_of_parts(server: Served) -> Figures:
    """Return the CPU seconds of all processes of a server, and of each part of Ray's."""
    spent = dict.fromkeys(("all", *PARTS), 0.0)
    for process in (server.process, *server.children()):
        try:
            times, words = process.cpu_times(), process.cmdline()
        except psutil.Error:
            continue
        spent["all"] += times.user + times.system
        for part, name in PARTS.items():
            if words and words[0].startswith(name):
                spent[part] += times.user + times.system
    return spent


def measure(server: Served, traffic: Traffic, lists: Path, seconds: float, log: Path) -> Figures:
    """Send requests for `seconds`, after a warm-up of a quarter of that."""
    arguments = (server.address, str(lists), str(traffic.batch), str(traffic.in_flight))
    command = [sys.executable, "-m", "benchmarks.contestants.raw_client", *arguments]
    race = Race([Contestant("client", command)], log)
    try:
        if race.missing:
            sys.exit(f"the client did not start, see {log}")
        race.run(1, seconds / 4)
        before, started_s = cpu_s_of_parts(server), time.perf_counter()
        ((figures,),) = race.run(1, seconds).values()
        after, taken_s = cpu_s_of_parts(server), time.perf_counter() - started_s
    finally:
        race.close()
    requests = figures["requests_per_s"] * taken_s  # the last ones end after `seconds`
    cpu_us = {f"cpu_us_{part}": (after[part] - before[part]) / requests * 1e6 for part in after}
    return {**figures, **cpu_us}


def name_of(backend: str, kind: str, replicas: int, traffic: Traffic) -> str:
    return f"{backend}, {traffic}: {kind} {replicas}"


def run_round(
    backends: Sequence[str], overrides: Sequence[str], lists: Path, seconds: float, log: Path
) -> dict[str, Figures]:
    """Start each server in turn and measure it."""
    taken = {}
    for backend in backends:
        for replicas in REPLICAS:
            for kind, words in OVERRIDES.items():
                own = words.format(n=replicas).split()
                common = [f"backend={backend}", "dashboard=none", *own, *overrides]
                with served(common) as server:
                    for traffic in TRAFFIC[backend]:
                        name = name_of(backend, kind, replicas, traffic)
                        print(name, file=sys.stderr, flush=True)
                        longer = 1.0 if backend == "noop" else WITH_MODEL
                        taken[name] = measure(server, traffic, lists, longer * seconds, log)
    return taken


def report(taken: Mapping[str, Sequence[Figures]], backends: Sequence[str], about: str) -> str:
    rows, figures = [], []
    for backend in backends:
        for traffic in TRAFFIC[backend]:
            names = {
                (kind, n): name_of(backend, kind, n, traffic)
                for n in REPLICAS
                for kind in OVERRIDES
            }
            for n in REPLICAS:
                for key, label in (("pairs_per_s", "throughput"), ("p50_ms", "p50")):
                    middle, least, largest = ratios(taken, names[RAY, n], names[OURS, n], key)
                    row = (backend, str(traffic), f"ray {n} / processes {n}", label)
                    rows.append((*row, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}"))
            middle, least, largest = ratios(taken, names[RAY, 2], names[RAY, 1])
            row = (backend, str(traffic), "ray 2 / ray 1", "throughput")
            rows.append((*row, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}"))
    for name, rounds in taken.items():
        keys = ("requests_per_s", "pairs_per_s", "p50_ms", "cpu_us_all")
        values = [number(median(entry[key] for entry in rounds)) for key in keys]
        parts = [number(median(entry[f"cpu_us_{part}"] for entry in rounds)) for part in PARTS]
        figures.append((name, *values, *(parts if RAY in name else ("", ""))))
    heads = ("", "requests/s", "pairs/s", "p50 (ms)", "CPU per request (us)", "proxy", "replicas")
    return "\n\n".join(
        [
            f"{about}; pairs per request x requests in flight",
            markdown_table(
                ("backend", "traffic", "ratio", "of", "median", "rounds"), rows, "llllrr"
            ),
            markdown_table(heads, figures, "lrrrrrr"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--backends", nargs="+", choices=list(TRAFFIC), default=list(TRAFFIC))
    parser.add_argument("overrides", nargs="*", help="crossbench overrides")
    given = parser.parse_args()
    outputs_dir().mkdir(exist_ok=True)
    log = outputs_dir() / "ray_serve.log"
    taken: Taken = {}
    with tempfile.TemporaryDirectory(prefix="crossbench-ray-") as folder:
        lists = Path(folder) / "lists.json"
        cell = open_cell([*given.overrides, "backend=noop"])
        lists.write_text(json.dumps([(entry.query, entry.passages) for entry in cell.lists]))
        for turn in range(given.rounds):
            print(f"round {turn + 1}/{given.rounds}", file=sys.stderr, flush=True)
            found = run_round(given.backends, given.overrides, lists, given.seconds, log)
            for name, figures in found.items():
                taken.setdefault(name, []).append(figures)
    about = f"{machine()}; {given.rounds} rounds of {given.seconds:g} s"
    text = report(taken, given.backends, about)
    print(text)
    (outputs_dir() / "ray_serve.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
