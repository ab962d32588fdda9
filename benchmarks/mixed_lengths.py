"""Does cost grow with tokens, or with the longest text beside them? Mixed against equal lengths.

    python -m benchmarks.mixed_lengths [--rounds 5] [--seconds 5] [OVERRIDES ...]

Pairs of 20 and of 400 tokens, half of each, against pairs of 210 (as many tokens in all), end to
end over gRPC with 4 requests of 32 in flight. Attention's cost grows with the square of a length,
so the long pairs of the mixture cost more a token: by the operations of a MiniLM-L6 no engine can
keep more than about 93 %. OVERRIDES are crossbench's own. Writes outputs/mixed_lengths.md.
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

QUERY_AND_SPECIAL_TOKENS = 10  # about MS MARCO's mean query, and the three special tokens of a pair
MIXED, EQUAL = (20, 400), (210,)
WAYS = {
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
    parser.add_argument("overrides", nargs="*", help="crossbench's own, such as model=local")
    given = parser.parse_args()
    overrides = given.overrides
    entries = []
    for way, choice in WAYS.items():
        entries.append(contestant(f"{way}: mixed", [*choice, *overrides], MIXED))
        entries.append(contestant(f"{way}: equal", [*choice, *overrides], EQUAL))
    race = Race(entries, outputs_dir() / "mixed_lengths.log")
    taken = race.run(given.rounds, given.seconds)
    race.close()

    rows = []
    for way in (way for way in WAYS if {f"{way}: mixed", f"{way}: equal"} <= taken.keys()):
        mixed, equal = f"{way}: mixed", f"{way}: equal"
        speeds = [
            number(median(entry["tokens_per_s"] for entry in taken[name]))
            for name in (mixed, equal)
        ]
        middle, least, largest = ratios(taken, mixed, equal, "tokens_per_s")
        rows.append((way, *speeds, f"{middle:.2f}", f"{least:.2f} to {largest:.2f}"))
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
