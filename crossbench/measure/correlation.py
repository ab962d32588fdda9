"""Pearson's correlation of throughput and latency, over requests and over windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossbench.measure.intervals import CONFIDENCE, Interval, cross_correlation_time
from crossbench.measure.statistics import request_throughput, windows
from crossbench.types import RequestRecord

MIN_OBSERVATIONS = 3

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r of two sequences of equal length, each float64 (n,)."""

    x: Float64Array
    y: Float64Array
    r: float

    @property
    def n(self) -> int:
        return len(self.x)

    def interval(self) -> Interval | None:
        """Return Fisher's 95 % interval of r, or None for too few independent observations.

        The number of independent observations follows from the autocorrelations of both sequences
        (`intervals.cross_correlation_time`). The interval assumes normally distributed values.
        """
        if self.n <= MIN_OBSERVATIONS:
            return None
        if abs(self.r) == 1:
            return Interval(self.r, self.r)
        independent = self.n / cross_correlation_time(self.x, self.y)
        if independent <= MIN_OBSERVATIONS:
            return None
        # The formula of `scipy.stats.pearsonr`, whose import would cost every cell a second
        half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) / math.sqrt(independent - 3)
        z = math.atanh(self.r)
        return Interval(math.tanh(z - half), math.tanh(z + half))


def pearson(x: ArrayLike, y: ArrayLike) -> Correlation | None:
    """Return the correlation of two sequences of equal length, or None if it is undefined.

    It is undefined for fewer than three values, for constant values, and if a value is NaN or
    infinite.
    """
    first, second = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n = len(first)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    if n < MIN_OBSERVATIONS or _constant(first) or _constant(second):
        return None
    a, b = first - first.mean(), second - second.mean()
    r = float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))
    return Correlation(first, second, min(1.0, max(-1.0, r)))  # rounding may exceed this range


def correlations(records: Sequence[RequestRecord]) -> dict[str, Correlation]:
    """Return the correlations `request`, `window` and `tokens`, without undefined ones.

    `request` correlates pairs / latency with latency, over the requests. With a constant batch this
    is x against 1 / x and close to -1 by construction. `window` correlates pairs/s with the median
    latency, over the windows. It excludes windows after the last send, in which both decrease
    together. With a fixed number of requests in flight, Little's law (throughput = requests in
    flight / mean latency) pulls it towards -1 as well. `tokens` correlates a request's real tokens
    with its latency: it shows how far the text length explains the latency.
    """
    good = [record for record in records if record.ok]
    if not good:
        return {}
    latency = [record.latency_ms for record in good]
    series, last_send_s = windows(records), max(record.sent_s for record in records)
    steady = [
        (rate, p50)
        for end_s, rate, p50 in zip(series.time_s, series.pairs_per_s, series.p50_ms, strict=True)
        if p50 is not None and end_s <= last_send_s
    ]
    tokens = [record.tokens for record in good if record.tokens is not None]
    found = {
        "request": pearson(request_throughput(good), latency),
        "window": pearson([rate for rate, _ in steady], [p50 for _, p50 in steady]),
        "tokens": pearson(tokens, latency) if len(tokens) == len(good) else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def correlation_metrics(records: Sequence[RequestRecord]) -> dict[str, float]:
    """Return `correlation/request` etc., each with its `…_n`, without undefined ones."""
    metrics: dict[str, float] = {}
    for name, found in correlations(records).items():
        metrics[f"correlation/{name}"] = found.r
        metrics[f"correlation/{name}_n"] = float(found.n)
    return metrics


def correlation_intervals(records: Sequence[RequestRecord]) -> dict[str, float]:
    """Return `correlation/request_low`, `…_high` etc., without undefined ones."""
    metrics: dict[str, float] = {}
    for name, found in correlations(records).items():
        if (interval := found.interval()) is not None:
            metrics[f"correlation/{name}_low"] = interval.low
            metrics[f"correlation/{name}_high"] = interval.high
    return metrics


def _constant(values: Float64Array) -> bool:
    """Return whether all values are equal, except for rounding errors."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
