"""Measure what sharing a process costs: client and server in one process, and in two.

    python -m benchmarks.sharing [--rounds 5] [--seconds 5] [OVERRIDES ...]

Cells of target=inprocess and target=process run in turn. OVERRIDES are passed to crossbench. It
writes outputs/sharing.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.cells import run_cell
from benchmarks.race import machine
from crossbench.measure import catalogue
from crossbench.report.tables import markdown_table
from crossbench.results import RunResult
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

TARGETS = ("inprocess", "process")
CELLS = {
    "noop, 1 request in flight": ("backend=noop", "concurrency=1"),
    "noop, 8 requests in flight": ("backend=noop", "concurrency=8"),
    "onnx, 1 request in flight": ("backend=onnx", "concurrency=1"),
    "onnx, 4 requests in flight": ("backend=onnx", "concurrency=4"),
}
METRICS = (catalogue.PAIRS_PER_S, catalogue.latency(50), catalogue.latency(95))

# The results of each cell by target, one for each round
Rounds = dict[str, dict[str, list[RunResult]]]


def row(name: str, by_target: dict[str, list[RunResult]]) -> tuple[str, ...]:
    """Return the medians of throughput, and the ratios process / inprocess of each metric."""
    rate = METRICS[0]
    speeds = [
        rate.text(median(result.metrics[rate.name] for result in by_target[target]))
        for target in TARGETS
    ]
    flagged = sum(bool(result.flags) for results in by_target.values() for result in results)
    ratios = [_ratio(metric.name, by_target) for metric in METRICS]
    return (name, *speeds, *ratios, str(flagged))


def _ratio(name: str, by_target: dict[str, list[RunResult]]) -> str:
    shared, separate = (by_target[target] for target in TARGETS)
    each = [b.metrics[name] / a.metrics[name] for a, b in zip(shared, separate, strict=True)]
    low, middle, high = (f"{value:.2f}" for value in (min(each), median(each), max(each)))
    return f"{middle} ({low} to {high})"


def measured(rounds: int, seconds: float, overrides: Sequence[str]) -> Rounds:
    """Run every cell with both targets in each round."""
    taken: Rounds = {name: {target: [] for target in TARGETS} for name in CELLS}
    for turn in range(rounds):
        for name, words in CELLS.items():
            # Reverse the order in every second round, so that a slow drift cancels out
            for target in TARGETS[:: -1 if turn % 2 else 1]:
                common = [f"target={target}", f"max_seconds={seconds}", *overrides]
                result = run_cell([*words, *common])
                taken[name][target].append(result)
                rate = result.metrics[METRICS[0].name]
                print(
                    f"round {turn + 1}/{rounds}: {name}, target={target}: {number(rate)} pairs/s",
                    *result.flags.values(),
                    file=sys.stderr,
                    flush=True,
                )
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    taken = measured(given.rounds, given.seconds, given.overrides)
    headings = (
        "", *(f"{target} (pairs/s)" for target in TARGETS), "ratio of pairs/s",
        *(f"ratio of {metric.short}" for metric in METRICS[1:]), "flagged cells",
    )  # fmt: skip
    rows = [row(name, by_target) for name, by_target in taken.items()]
    text = "\n\n".join(
        [
            f"{machine()}; {given.rounds} rounds of {given.seconds:g} s. A ratio is that of "
            "process / inprocess: the median over the rounds, and the range.",
            markdown_table(headings, rows, "l" + "r" * (len(headings) - 1)),
        ]
    )
    print(text)
    outputs_dir().mkdir(exist_ok=True)
    (outputs_dir() / "sharing.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
