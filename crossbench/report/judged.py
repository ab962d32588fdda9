"""The values of runs that verdicts compare: throughput, p95 and peak memory, where they count."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossbench.load.labels import is_paced, is_ramp
from crossbench.measure.catalogue import DEVICE_PEAK_MB, P95_LATENCY, RATES, RSS_PEAK_MB
from crossbench.measure.contrasts import Difference
from crossbench.measure.metric import Better, Metric
from crossbench.measure.statistics import percentile_supported
from crossbench.report.columns import requests_ok
from crossbench.results import Flag, RunResult, Status
from crossbench.wording import percent

# How a report says that a value is higher and lower
_WORDS = {
    **dict.fromkeys(RATES, ("faster", "slower")),
    P95_LATENCY: ("higher", "lower"),
    **dict.fromkeys((RSS_PEAK_MB, DEVICE_PEAK_MB), ("more", "less")),
}
_TITLES = {P95_LATENCY: "p95", RSS_PEAK_MB: "peak memory", DEVICE_PEAK_MB: "peak GPU memory"}


def judged_value(result: RunResult, metric: Metric) -> float | None:
    """Return the natural logarithm of a run's value, or None if the value says nothing.

    The throughput of an open loop is that of its load. A p95 needs 100 requests, and that of an
    over-saturated run grows for as long as it lasts. The totals of a ramp mix several loads.
    """
    value = result.metrics.get(metric.name)
    if result.status is not Status.FINISHED or value is None or not value > 0:
        return None
    overloaded = Flag.OVER_SATURATED in result.flags
    if metric in RATES and (is_paced(result.config) or is_ramp(result.config) or overloaded):
        return None
    if metric is P95_LATENCY and (
        is_ramp(result.config)
        or overloaded
        or not percentile_supported(95, requests_ok(result.metrics))
    ):
        return None
    return math.log(value)


def judged_values(runs: Sequence[RunResult], metric: Metric) -> list[float | None]:
    """Return the value of each run; all None if one that finished has no value.

    Without the slow runs, which have too few requests for a p95, the others would look too fast.
    """
    values = [judged_value(run, metric) for run in runs]
    if any(
        value is None and run.status is Status.FINISHED
        for run, value in zip(runs, values, strict=True)
    ):
        return [None] * len(runs)
    return values


def title(metric: Metric) -> str:
    """Return the metric's name in verdicts: `throughput`, `p95`, `peak memory`."""
    return _TITLES.get(metric, "throughput")


def difference_text(metric: Metric, difference: Difference, margin: float) -> str:
    """Return a verdict in words, such as `faster` or `cannot tell`."""
    if difference is Difference.SAME:
        return f"the same within ±{percent(margin)}"
    if difference is Difference.UNKNOWN:
        return "cannot tell"
    return _WORDS[metric][0 if difference is Difference.HIGHER else 1]


def is_better(metric: Metric, difference: Difference) -> bool:
    """Return whether a difference is one for the better."""
    better = Difference.HIGHER if metric.better is Better.HIGHER else Difference.LOWER
    return difference is better


def is_worse(metric: Metric, difference: Difference) -> bool:
    """Return whether a difference is one for the worse."""
    worse = Difference.LOWER if metric.better is Better.HIGHER else Difference.HIGHER
    return difference is worse
