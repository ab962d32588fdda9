"""How well the statistics hold on simulated runs with known answers.

    python -m benchmarks.statistics [--runs 2000]

Prints the coverage and the width of the intervals, the error of the throughput, and how often an
open loop is called over-saturated. Seeds are fixed. Writes outputs/statistics.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
from rich.progress import track

from benchmarks import stopping
from benchmarks.processes import PHIS, Z_95, Float64Array, ar_process, true_half_width
from benchmarks.queues import closed_queue, open_queue
from crossbench.load.saturation import SaturationWatch
from crossbench.measure.catalogue import PAIRS_PER_S, SPAN_RATES
from crossbench.measure.intervals import Interval, mean_interval, percentile_interval
from crossbench.measure.statistics import summarise
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir

WINDOWS = (10, 15, 30, 60, 120, 240)
REQUESTS = (500, 1000, 3000)
STOP_SEED = 2026  # the rule was chosen on other seeds, and was not changed after this one


def coverage_row(found: Sequence[Interval | None], truth: float, width: float) -> list[str]:
    """Return the share of runs with an interval, its coverage, wrong ones of all runs, and width.

    `width` is the oracle's.
    """
    given = [interval for interval in found if interval is not None]
    if not given:
        return ["0 %", "n/a", "0.0 %", "n/a"]
    right = sum(interval.low <= truth <= interval.high for interval in given)
    wide = float(np.median([interval.high - interval.low for interval in given])) / width
    return [
        f"{len(given) / len(found):.0%}",
        f"{right / len(given):.1%}",
        f"{(len(given) - right) / len(found):.1%}",
        f"{wide:.2f}",
    ]


HEADERS = ["runs with an interval", "coverage", "wrong, of all runs", "width / oracle's"]


def mean_table(runs: int) -> str:
    rows = []
    for n in track(WINDOWS, "means"):
        for phi in PHIS:
            values = 10 + ar_process(n, phi, runs, 1)
            found = [mean_interval(run) for run in values.tolist()]
            oracle = 2 * true_half_width(n, phi)
            rows.append([str(n), str(phi), *coverage_row(found, 10.0, oracle)])
    return markdown_table(["windows", "phi", *HEADERS], rows, "rrrrrr")


def percentile_table(runs: int) -> str:
    from scipy.stats import norm

    rows = []
    for n in track(REQUESTS, "percentiles"):
        for q in (50, 95, 99):
            for phi in PHIS:
                values = np.exp(0.5 * ar_process(n, phi, runs, 2))
                truth = math.exp(0.5 * norm.ppf(q / 100))
                found = [percentile_interval(run, q) for run in values.tolist()]
                oracle = 2 * Z_95 * float(np.std(np.quantile(values, q / 100, axis=1)))
                rows.append([str(n), f"p{q}", str(phi), *coverage_row(found, truth, oracle)])
    return markdown_table(["requests", "", "phi", *HEADERS], rows, "rlrrrrr")


def gamma_times(cv: float, seed: int) -> Callable[[], float]:
    """Return a function that draws service times with mean 1."""
    rng = np.random.default_rng(seed)
    return lambda: float(rng.gamma(1 / cv**2, cv**2)) if cv else 1.0


def throughput_table(runs: int) -> str:
    rows = []
    for workers in track((1, 4), "throughput"):
        for requests in (8, 12, 20, 100):
            for cv in (0.0, 0.3, 0.6):
                draw = gamma_times(cv, 3)
                found = np.empty((2, runs))
                for run in range(runs):
                    metrics = summarise(closed_queue(requests, max(4, workers), workers, draw))
                    found[:, run] = (
                        metrics[PAIRS_PER_S.name],
                        metrics[SPAN_RATES[0].name],
                    )
                errors = (f"{error:+.1%}" for error in found.mean(axis=1) / workers - 1)
                rows.append([str(workers), str(requests), str(cv), *errors])
    headers = ["workers", "requests", "variation of service times", "error", "error over the span"]
    return markdown_table(headers, rows, "rrrrr")


def saturation_table(runs: int) -> str:
    rows = []
    for workers in track((1, 4), "saturation"):
        for load in (0.5, 0.7, 0.8, 0.9, 1.2, 1.5, 2.0):
            for cv in (0.3, 1.0):
                rng, draw = np.random.default_rng(4), gamma_times(cv, 5)
                ended = [
                    recognised(rng.exponential(1 / (load * workers), 400), workers, draw)
                    for _ in range(runs)
                ]
                at = [request for request in ended if request]
                middle = f"{np.median(at):.0f}" if at else "–"
                rows.append([str(workers), f"{load:g}", str(cv), f"{len(at) / runs:.1%}", middle])
    headers = ["workers", "rate / capacity", "variation of service times", "over-saturated",
               "recognised after requests"]  # fmt: skip
    return markdown_table(headers, rows, "rrrrr")


def recognised(gaps_s: Float64Array, workers: int, draw: Callable[[], float]) -> int | None:
    """Return after how many requests an open loop is called over-saturated, or None."""
    due_s = np.cumsum(gaps_s)
    ends_s = np.sort([r.received_s for r in open_queue(due_s.tolist(), workers, draw)])
    watch = SaturationWatch(1.0)
    for index, now_s in enumerate(due_s):
        answered = int(np.searchsorted(ends_s, now_s, side="right"))
        if watch.is_over_saturated(index + 1, answered):
            return index + 1
    return len(due_s) if watch.was_over_saturated() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    parts = {
        f"Interval of the mean, {runs} runs of an AR(1) process each": mean_table(runs),
        f"Interval of a percentile, {runs} runs each": percentile_table(runs),
        f"Runs that end by their throughput (stop.precision={stopping.PRECISION}), {runs} each": (
            stopping.throughput_table(runs, STOP_SEED)
        ),
        f"Runs that end by their p95 (stop.p95_precision={stopping.P95_PRECISION}), {runs} each": (
            stopping.p95_table(runs, STOP_SEED)
        ),
        "Throughput of simulated closed loops": throughput_table(min(runs, 500)),
        "Over-saturation of simulated Poisson arrivals, 400 requests": saturation_table(
            min(runs, 300)
        ),
    }
    text = "\n\n".join(f"## {title}\n\n{table}" for title, table in parts.items())
    print(text)
    (outputs_dir() / "statistics.md").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
