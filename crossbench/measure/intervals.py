"""How far a number can be trusted: 95 % confidence intervals.

SciPy's statistics take most of a second and 70 MB to import, so they are imported in here, and who
measures calls this afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, in the unit of what it belongs to."""

    low: float
    high: float


def t_95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))


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
    if not len(values) or not 0 < q < 100 or not np.isfinite(values).all():
        return None
    from scipy.stats import quantile_test

    found = quantile_test(values, p=q / 100).confidence_interval(CONFIDENCE)
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return None
    return Interval(float(found.low), float(found.high))
