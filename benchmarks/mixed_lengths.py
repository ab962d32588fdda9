"""Compare the throughput for pairs of mixed lengths with pairs of equal length.

    python -m benchmarks.mixed_lengths [--rounds 5] [--seconds 5] [OVERRIDES ...]

It shows whether the cost grows with the number of tokens or with the longest text in a batch. Half
of the mixed pairs have 20 tokens and half 400; the equal pairs have 210, which is the same total.
All are measured end to end over gRPC, with 4 requests of 32 in flight. The cost of attention grows
with the square of the length, so that no engine can keep more than about 93 % of its tokens/s with
a MiniLM-L6. OVERRIDES are passed to crossbench. It writes outputs/mixed_lengths.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.race import Contestant, Race, machine, ratios
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

QUERY_AND_SPECIAL_TOKENS = 10  # about the mean MS MARCO query, and a pair's three special tokens
MIXED, EQUAL = (20, 400), (210,)
VARIANTS = {
    "packed": ("backend=packed",),
    "openvino": ("backend=openvino",),
    "onnx": ("backend=onnx",),
    "pytorch, length_aware": ("backend=pytorch", "scheduler=length_aware"),
    "pytorch, in order of arrival": ("backend=pytorch", "scheduler=dynamic"),
}


def contestant(name: str, overrides: Sequence[str], lengths: Sequence[int]) -> Contestant:
    passages = ",".join(str(length - QUERY_AND_SPECIAL_TOKENS) for length in lengths)
    common = [
        "batch=32",
        "concurrency=4",
        "dataset=synthetic",
        f"dataset.passage_tokens=[{passages}]",
    ]
    command = [sys.executable, "-m", "benchmarks.contestants.crossbench_server"]
    return Contestant(name, [*command, *common, *overrides])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "overrides", nargs="*", help="crossbench overrides, for example model=local"
    )
    given = parser.parse_args()
    overrides = given.overrides
    entries = []
    for variant, choice in VARIANTS.items():
        entries.append(contestant(f"{variant}: mixed", [*choice, *overrides], MIXED))
        entries.append(contestant(f"{variant}: equal", [*choice, *overrides], EQUAL))
    race = Race(entries, outputs_dir() / "mixed_lengths.log")
    taken = race.run(given.rounds, given.seconds)
    race.close()

    rows = []
    for variant in VARIANTS:
        mixed, equal = f"{variant}: mixed", f"{variant}: equal"
        if not {mixed, equal} <= taken.keys():
            continue
        speeds = [
            number(median(entry["tokens_per_s"] for entry in taken[name]))
            for name in (mixed, equal)
        ]
        middle, least, largest = ratios(taken, mixed, equal, "tokens_per_s")
        rows.append((variant, *speeds, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}"))
    text = "\n\n".join(
        [
            f"{machine()}; {given.rounds} rounds of {given.seconds:g} s, interleaved",
            markdown_table(
                ("", "tokens/s, 20 and 400", "tokens/s, all 210", "ratio", "rounds"), rows, "lrrrr"
            ),
            *(f"{name}: {reason}" for name, reason in race.missing.items()),
        ]
    )
    print(text)
    (outputs_dir() / "mixed_lengths.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
