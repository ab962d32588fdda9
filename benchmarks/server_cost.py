"""Measure the overhead of the server by comparing it with the same work without it, interleaved.

    python -m benchmarks.server_cost [--backend packed] [--rounds 5] [--seconds 5] [OVERRIDES ...]

1. Throughput over gRPC (4 requests of 32 in flight), compared with direct calls of the backend
2. Latency of a single request with one pair, compared with tokenising and calling the backend
3. Throughput without a model (backend=noop), compared with the tokenizers library on whole pairs,
   and with cached tokens (pipeline=infer)

OVERRIDES are passed to crossbench (model=local model.path=DIR dataset=trec dataset.path=DIR).
It writes outputs/server_cost.md.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.race import Contestant, Race, machine, ratios, speed_table
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir


def contestant(name: str, module: str, overrides: list[str]) -> Contestant:
    command = [sys.executable, "-m", f"benchmarks.contestants.{module}", *overrides]
    return Contestant(name, command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="packed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "overrides", nargs="*", help="crossbench overrides, for example model=local"
    )
    given = parser.parse_args()
    overrides = given.overrides
    loaded = [*overrides, f"backend={given.backend}", "batch=32", "concurrency=4"]
    single = [*overrides, f"backend={given.backend}", "batch=1", "concurrency=1"]
    noop = [*overrides, "backend=noop", "batch=32", "concurrency=4"]
    cached = [*noop, "pipeline=infer"]
    race = Race(
        [
            contestant("server", "crossbench_server", loaded),
            contestant("direct", "crossbench_direct", loaded),
            contestant("server, single pair", "crossbench_server", single),
            contestant("direct, single pair", "crossbench_direct", single),
            contestant("server, noop", "crossbench_server", noop),
            contestant("our tokenizer", "crossbench_direct", noop),
            contestant("tokenizers library", "tokenizers_library", noop),
            contestant("server, noop, cached tokens, 32 per request", "crossbench_server", cached),
            contestant(
                "server, noop, cached tokens, 128 per request",
                "crossbench_server",
                [*cached, "batch=128"],
            ),
        ],
        outputs_dir() / "server_cost.log",
    )
    if race.missing:
        race.close()
        sys.exit("\n".join(f"{name}: {reason}" for name, reason in race.missing.items()))
    taken = race.run(given.rounds, given.seconds)
    race.close()

    rows = []
    for label, ours, other, key in (
        ("throughput, server / direct", "server", "direct", "pairs_per_s"),
        (
            "latency p50 of a single pair, server / direct",
            "server, single pair",
            "direct, single pair",
            "p50_ms",
        ),
        ("noop server / tokenizers library", "server, noop", "tokenizers library", "pairs_per_s"),
        ("noop server / our tokenizer", "server, noop", "our tokenizer", "pairs_per_s"),
    ):
        middle, least, largest = ratios(taken, ours, other, key)
        rows.append((label, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}"))
    text = "\n\n".join(
        [
            f"{machine()}; backend={given.backend}, {given.rounds} rounds of {given.seconds:g} s",
            speed_table(taken),
            markdown_table(("ratio", "median", "rounds"), rows, "lrr"),
        ]
    )
    print(text)
    (outputs_dir() / "server_cost.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
