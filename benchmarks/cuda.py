"""Compare backend=cuda with sentence-transformers' predict on the same GPU, interleaved.

    python -m benchmarks.cuda --model DIR --data DIR [--rounds 5] [--seconds 5] [OVERRIDES ...]

crossbench is measured end to end over gRPC, with 8 requests of 128 passages in flight. predict is
called within its process with several batch sizes, and the best one is the baseline. The report
also has crossbench's stage timings and peak device memory. It needs an NVIDIA GPU and writes
outputs/cuda.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

from benchmarks.race import Contestant, Race, machine, ratios, speed_table
from crossbench.backends.availability import Unavailable, availability
from crossbench.backends.cuda import CudaBackend
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.types import Quant
from crossbench.wording import number

BATCH, CONCURRENCY = 128, 8
QUANTS = ("fp16", "bf16", "fp32", "int8")
PREDICT_BATCHES = (32, 128, 512)


def contestants(model: str, data: str, overrides: list[str]) -> tuple[list[str], list[Contestant]]:
    """Return the names of crossbench's contestants, and all contestants."""
    common = [
        *("model=local", f"model.path={model}", "dataset=trec", f"dataset.path={data}"),
        *("backend=cuda", f"batch={BATCH}", f"concurrency={CONCURRENCY}", *overrides),
    ]
    server = [sys.executable, "-m", "benchmarks.contestants.crossbench_server", *common]
    ours = [Contestant(f"crossbench {quant}", [*server, f"quant={quant}"]) for quant in QUANTS]
    predict = [sys.executable, "-m", "benchmarks.contestants.sentence_transformers_predict"]
    peers = [
        Contestant(
            f"sentence-transformers fp16, batch {size}",
            [
                *predict,
                model,
                data,
                "cuda",
                str(BATCH * CONCURRENCY),
                str(size),
                "torch",
                "float16",
            ],
        )
        for size in PREDICT_BATCHES
    ]
    return [one.name for one in ours], [*ours, *peers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the folder of a cross-encoder")
    parser.add_argument(
        "--data", type=Path, required=True, help="a folder with data in TREC format"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "overrides", nargs="*", help="crossbench overrides, for example model.max_length=256"
    )
    given = parser.parse_args()
    overrides = given.overrides
    found = availability(CudaBackend, Quant.FP16, "cuda")
    if isinstance(found, Unavailable):
        sys.exit(f"this benchmark needs an NVIDIA GPU. {found}")
    model, data = str(given.model.resolve()), str(given.data.resolve())
    ours, everyone = contestants(model, data, overrides)
    race = Race(everyone, outputs_dir() / "cuda.log")
    taken = race.run(given.rounds, given.seconds)
    race.close()

    speeds = {name: median(turn["pairs_per_s"] for turn in turns) for name, turns in taken.items()}
    best = max((name for name in taken if name not in ours), key=speeds.__getitem__)
    rows = []
    for name in (name for name in ours if name in taken):
        middle, least, largest = ratios(taken, name, best)
        stages = [
            number(median(turn[key] for turn in taken[name]))
            for key in ("tokenize_ms", "queue_ms", "infer_ms", "p50_ms", "device_peak_mb")
        ]
        rows.append((name, f"{middle:.2f} x", f"{least:.2f} to {largest:.2f}", *stages))
    headers = ("", f"/ {best}", "rounds", "tokenise p50 (ms)", "queue p50 (ms)", "infer p50 (ms)",
               "latency p50 (ms)", "device peak (MB)")  # fmt: skip
    text = "\n\n".join(
        [
            f"{machine()}; {given.rounds} rounds of {given.seconds:g} s, interleaved",
            speed_table(taken),
            markdown_table(headers, rows, "lrrrrrrr"),
            *(f"{name}: {reason}" for name, reason in race.missing.items()),
        ]
    )
    print(text)
    (outputs_dir() / "cuda.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
