"""How well intervals hold when they decide themselves when a run ends (`stop=precision`).

Each simulated run sends one request after the other, and its true throughput and p95 are known. The
project's own watch reads the records and ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from rich.progress import track

from benchmarks.processes import PHIS, Float64Array, ar_process, true_half_width
from benchmarks.queues import one_record
from crossbench.load.stop import End, Limits, Precision
from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.measure.intervals import Interval, percentile_interval
from crossbench.measure.rate_windows import MIN_WINDOW_S, throughput_interval
from crossbench.measure.statistics import steady_rate
from crossbench.report.tables import markdown_table
from crossbench.types import RequestRecord

NEEDED = (15, 30, 60, 120, 240)  # windows for the precision, by someone who knows the process
PRECISION = 0.03
P95_PRECISION = 0.1
MIN_S = 5.0
PAIRS = 100_000  # per request on average, so that rates are hardly rounded
P95_REQUESTS = 4000  # at most, in a run that ends by its p95
LATENCY_S, LATENCY_SD = 0.05, 0.3  # the median, and the standard deviation of the logarithm
HEADERS = ["ended by the rule", "requests, median", "coverage then", "coverage of all intervals"]
Records = Callable[[int], RequestRecord]


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a simulated run ended, after how many requests, and the interval that it reports."""

    end: End
    requests: int
    interval: Interval | None


def throughput_table(runs: int, seed: int) -> str:
    rows = []
    for phi in track(PHIS, "stop rule: throughput"):
        for needed in NEEDED:
            found = throughput_runs(phi, needed, runs, seed)
            rows.append([str(phi), str(needed), *_row(found, PAIRS / MIN_WINDOW_S)])
    return markdown_table(["phi", "windows needed", *HEADERS], rows, "rrrrrr")


def p95_table(runs: int, seed: int) -> str:
    truth_ms = LATENCY_S * 1e3 * math.exp(LATENCY_SD * NormalDist().inv_cdf(0.95))
    rows = [
        [str(phi), *_row(p95_runs(phi, runs, seed), truth_ms)]
        for phi in track(PHIS, "stop rule: p95")
    ]
    return markdown_table(["phi", *HEADERS], rows, "rrrrr")


def throughput_runs(phi: float, needed: int, runs: int, seed: int) -> list[Ended]:
    """Runs whose windows have an autocorrelation `phi` and need `needed` for the precision.

    A run has at most four times as many windows, and at least 480.
    """
    longest = max(4 * needed, 480)
    sd = PRECISION / true_half_width(needed, phi)
    stop = _rule(longest * MIN_WINDOW_S, None)

    def run(rates: Float64Array) -> Ended:
        def record(index: int) -> RequestRecord:  # one in each window, for half of its length
            sent_s, pairs = index * MIN_WINDOW_S, round(PAIRS * float(rates[index]))
            return one_record(
                index, sent_s, sent_s + MIN_WINDOW_S / 2, sent_s + MIN_WINDOW_S, pairs
            )

        return _until_end(stop, record, _throughput_interval, scheduled=False)

    return [run(rates) for rates in 1 + sd * ar_process(longest + 1, phi, runs, seed)]


def p95_runs(phi: float, runs: int, seed: int) -> list[Ended]:
    """Runs that end by their p95; the logarithms of the latencies have an autocorrelation `phi`."""
    stop = _rule(math.inf, P95_PRECISION)

    def run(latencies_s: Float64Array) -> Ended:
        ends_s = np.cumsum(latencies_s)

        def record(index: int) -> RequestRecord:
            end_s = float(ends_s[index])
            sent_s = end_s - float(latencies_s[index])
            return one_record(index, sent_s, sent_s, end_s, 1)

        return _until_end(
            stop,
            record,
            lambda sent: percentile_interval([item.latency_ms for item in sent], 95),
            scheduled=True,
        )

    logs = LATENCY_SD * ar_process(P95_REQUESTS + 1, phi, runs, seed)
    return [run(latencies_s) for latencies_s in LATENCY_S * np.exp(logs)]


def _throughput_interval(records: Sequence[RequestRecord]) -> Interval | None:
    """Return the interval that the result of a cell has."""
    rate = steady_rate(records) or 0.0
    pairs_per_s = rate * float(np.mean([record.pairs for record in records]))
    found = throughput_interval(records, PAIRS_PER_S, {PAIRS_PER_S.name: pairs_per_s})
    ends = PAIRS_PER_S.interval(found)
    return None if ends is None else Interval(*ends)


def _rule(longest_s: float, p95_precision: float | None) -> Precision:
    limits = Limits(P95_REQUESTS if p95_precision else None, min(longest_s, 1e9))
    return Precision("precision", limits, PRECISION, p95_precision, 30, MIN_S, 0.0)


def _until_end(
    stop: Precision,
    record: Records,
    interval: Callable[[Sequence[RequestRecord]], Interval | None],
    *,
    scheduled: bool,
) -> Ended:
    """Send requests until the rule ends the run."""
    watch, sent = stop.watch(scheduled=scheduled), list[RequestRecord]()
    while True:
        following = record(len(sent))
        if sent and (end := watch.end(len(sent), following.sent_s)):
            return Ended(end, len(sent), interval(sent))
        watch.note(following)
        sent.append(following)


def _row(found: Sequence[Ended], truth: float) -> list[str]:
    by_rule = [run for run in found if run.end is End.PRECISION]
    return [
        f"{len(by_rule) / len(found):.0%}",
        f"{np.median([run.requests for run in found]):.0f}",
        _coverage(by_rule, truth),
        _coverage(found, truth),
    ]


def _coverage(found: Sequence[Ended], truth: float) -> str:
    given = [run.interval for run in found if run.interval is not None]
    if not given:
        return "n/a"
    return f"{sum(item.low <= truth <= item.high for item in given) / len(given):.1%}"
