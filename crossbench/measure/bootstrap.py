"""Bootstrap intervals of means over queries."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.finite import check_finite
from crossbench.measure.intervals import Interval, t_95

RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500  # limits memory for many queries

Float64Array = NDArray[np.float64]


def bootstrap_means(values: Float64Array, seed: int) -> Float64Array:
    """Return the means of `values` (n, columns) over resampled rows: (RESAMPLES, columns).

    Rows are queries, drawn with replacement. All columns use the same draws, so they are paired
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for rankings Sakai, Evaluating
    evaluation metrics based on the bootstrap, SIGIR 2006).

    Raises:
        NonFiniteValues: a value is NaN or infinite.
    """
    check_finite(values, "values to resample")
    rng, n = np.random.default_rng(seed), len(values)
    parts = [
        rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES_AT_ONCE) @ values / n
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    return np.concatenate(parts)


def bootstrap_interval(resampled: Float64Array, n: int) -> Interval | None:
    """Return the 95 % interval of resampled statistics of `n` observations, None for n < 2.

    This is the expanded percentile interval (Hesterberg, What teachers should know about the
    bootstrap, The American Statistician 69(4), 2015). It corrects for Student's t and for the
    biased variance of small samples, since the plain percentile interval is too narrow for a few
    dozen queries.

    Raises:
        NonFiniteValues: a resampled statistic is NaN or infinite.
    """
    check_finite(resampled, "resampled statistics")
    if n < 2 or not len(resampled):
        return None
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * t_95(n - 1))
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(low), float(high))
