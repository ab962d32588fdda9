"""95 % confidence intervals.

Importing SciPy's statistics takes most of a second and 70 MB. The functions import it when called,
and they are called only after the measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, in the unit of its value."""

    low: float
    high: float


def t_95(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution."""
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the interval of the mean of the values of consecutive windows.

    Returns None for fewer than five values, or if one is NaN or infinite.

    This is the method of batch means (Law and Kelton, Simulation Modeling and Analysis). The
    standard error is widened for correlated windows (lag-1 autocorrelation, as in an AR(1)
    process). The interval covers the variation within a run, not the variation between runs.
    """
    n = len(values)
    if n < 5:
        return None
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        return None
    centred = array - array.mean()
    variance = float(centred @ centred) / (n - 1)
    if variance == 0:
        return Interval(float(array.mean()), float(array.mean()))
    lag_1 = float(centred[:-1] @ centred[1:]) / float(centred @ centred)
    # A negative estimate from a few windows is not reliable enough to narrow the interval. An
    # estimate that leaves fewer than two independent windows shows a trend and not noise.
    inflation = min((1 + max(lag_1, 0.0)) / max(1 - lag_1, 1e-9), n / 2)
    half = t_95(n - 1) * math.sqrt(variance * inflation / n)
    return Interval(float(array.mean()) - half, float(array.mean()) + half)


def percentile_interval(values: Sequence[float], q: float) -> Interval | None:
    """Return a distribution-free interval of the percentile `q` (0..100).

    Returns None if there are too few values, or if one is NaN or infinite.

    The ends are order statistics, whose coverage is binomial for any distribution (David and
    Nagaraja, Order Statistics, 3rd ed., section 7.1). Each tail has at most 2.5 %, so the coverage
    is at least 95 %. This assumes independent observations. Requests that wait for each other are
    correlated, which makes the interval too narrow.
    """
    if not len(values) or not 0 < q < 100 or not np.isfinite(values).all():
        return None
    from scipy.stats import quantile_test

    found = quantile_test(values, p=q / 100).confidence_interval(CONFIDENCE)
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return None
    return Interval(float(found.low), float(found.high))
