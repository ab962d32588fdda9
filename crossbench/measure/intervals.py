"""How far a number can be trusted: confidence intervals without a statistics library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95

# Two-sided 95 % points of Student's t for 1..30 degrees of freedom (any table of the distribution).
_T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, in the unit of what it belongs to."""

    low: float
    high: float


def t_95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t; beyond 30 degrees its Cornish-Fisher expansion."""
    if degrees <= len(_T_95):
        return _T_95[degrees - 1]
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return z + (z**3 + z) / (4 * degrees) + second


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Interval of the mean of consecutive windows' values; None below five of them, or where one
    is NaN or infinite.

    The method of batch means (Law and Kelton, Simulation Modeling and Analysis), with the standard
    error widened for windows that resemble their neighbour (lag-1 autocorrelation, as of an AR(1)
    process). It covers what varies within a run, not what differs from run to run.
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
    # A negative estimate would narrow the interval on the word of a few windows: not believed.
    # Neither is one that leaves fewer than two independent windows: that is a trend, not noise.
    inflation = min((1 + max(lag_1, 0.0)) / max(1 - lag_1, 1e-9), n / 2)
    half = t_95(n - 1) * math.sqrt(variance * inflation / n)
    return Interval(float(array.mean()) - half, float(array.mean()) + half)


def percentile_interval(values: Sequence[float], q: float) -> Interval | None:
    """Distribution-free interval of the percentile `q` (0..100).

    None where `values` are too few, or where one is NaN or infinite.

    Between two order statistics, whose coverage is binomial whatever the distribution (David and
    Nagaraja, Order Statistics, 3rd ed., section 7.1): at most 2.5 % is left out on either side, so
    its coverage is at least 95 %. It takes the observations as independent; requests that queue
    behind each other are not quite that, and then it is too narrow.
    """
    n, p = len(values), q / 100
    if n == 0 or not 0 < p < 1 or not np.isfinite(values).all():
        return None
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))
    k = np.arange(n + 1)
    log_pmf = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    cdf = np.cumsum(np.exp(log_pmf + k * math.log(p) + (n - k) * math.log1p(-p)))
    tail = (1 - CONFIDENCE) / 2
    # With B ~ Bin(n, p) values below the true percentile, X_(lower) lies above it where B < lower
    # and X_(upper) not above it where B >= upper (ranks from 1).
    lower = int(np.searchsorted(cdf, tail, side="right"))
    upper = int(np.searchsorted(cdf, 1 - tail, side="left")) + 1
    if lower < 1 or upper > n:
        return None
    ordered = np.sort(np.asarray(values, dtype=float))
    return Interval(float(ordered[lower - 1]), float(ordered[upper - 1]))
