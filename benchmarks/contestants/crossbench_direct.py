"""A backend without a server: each call tokenises and infers `batch` x `concurrency` pairs.

The arguments are crossbench overrides. With backend=noop, only the tokenizer is measured.
"""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np

from benchmarks.contestants.cell import open_cell
from benchmarks.contestants.protocol import answer_requests
from crossbench.backends.base import Deployment
from crossbench.measure.probes import usable_cores
from crossbench.models.tokenizer import PairTokenizer
from crossbench.types import Pair


def main(overrides: list[str]) -> None:
    cell = open_cell(overrides)
    settings = cell.plan.settings
    deployment = Deployment(
        cell.model, settings.quant, settings.device, usable_cores(), settings.cache_dir
    )
    backend = cell.plan.backend.build(deployment=deployment)
    backend.load_model()
    backend.warmup([20, 90, 150])
    tokenizer = PairTokenizer(cell.model)
    pairs = [Pair(entry.query, text) for entry in cell.lists for text in entry.passages]
    endless, size = itertools.cycle(pairs), settings.batch * settings.concurrency

    def measure(seconds: float) -> dict[str, float]:
        calls_ms: list[float] = []
        started_s = time.perf_counter()
        while not calls_ms or time.perf_counter() - started_s < seconds:
            chunk = list(itertools.islice(endless, size))
            called_s = time.perf_counter()
            backend.infer(tokenizer.encode_pairs(chunk).batch)
            calls_ms.append((time.perf_counter() - called_s) * 1e3)
        pairs_per_s = len(calls_ms) * size / (time.perf_counter() - started_s)
        return {"pairs_per_s": pairs_per_s, "p50_ms": float(np.median(calls_ms))}

    answer_requests(measure)


if __name__ == "__main__":
    main(sys.argv[1:])
