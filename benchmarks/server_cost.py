"""What the server itself costs, each against the same work without it, interleaved.

    python -m benchmarks.server_cost [--backend packed] [--rounds 5] [--seconds 5] [OVERRIDES ...]

1. end to end over gRPC (4 requests of 32 in flight) against the same backend called directly
2. latency of a lone request of one pair against tokenising and calling the backend
3. the harness's floor (backend=noop): against the tokenizers library on whole pairs, and with the
   tokens cached (pipeline=infer)

OVERRIDES are crossbench's own (model=local model.path=DIR dataset=trec dataset.path=DIR).
Writes outputs/server_cost.md.
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
    parser.add_argument("overrides", nargs="*", help="crossbench's own, such as model=local")
    given = parser.parse_args()
    overrides = given.overrides
    loaded = [*overrides, f"backend={given.backend}", "batch=32", "concurrency=4"]
    lone = [*overrides, f"backend={given.backend}", "batch=1", "concurrency=1"]
    floor = [*overrides, "backend=noop", "batch=32", "concurrency=4"]
    cached = [*floor, "pipeline=infer"]
    race = Race(
        [
            contestant("server", "crossbench_server", loaded),
            contestant("direct", "crossbench_direct", loaded),
            contestant("server, lone pair", "crossbench_server", lone),
            contestant("direct, lone pair", "crossbench_direct", lone),
            contestant("server, noop", "crossbench_server", floor),
            contestant("our tokenizer", "crossbench_direct", floor),
            contestant("tokenizers library", "tokenizers_library", floor),
            contestant("server, noop, tokens cached, 32 a request", "crossbench_server", cached),
            contestant(
                "server, noop, tokens cached, 128 a request",
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
    for question, ours, other, key in (
        ("throughput, server / direct", "server", "direct", "pairs_per_s"),
        (
            "latency p50 of a lone pair, server / direct",
            "server, lone pair",
            "direct, lone pair",
            "p50_ms",
        ),
        ("noop server / tokenizers library", "server, noop", "tokenizers library", "pairs_per_s"),
        ("noop server / our tokenizer", "server, noop", "our tokenizer", "pairs_per_s"),
    ):
        middle, least, largest = ratios(taken, ours, other, key)
        rows.append((question, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}"))
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
