"""95 % confidence intervals of what one run shows, for observations that depend on each other.

Consecutive windows and consecutive requests of a run resemble each other, so they say less than as
many independent observations would. Each function estimates how many independent ones they are
worth, and returns None if that seems too few. Short runs of strongly correlated values that do get
an interval get one that is too narrow: `python -m benchmarks.statistics` prints how often. All
these intervals are about *this run*: how much another run of the same configuration would differ,
only repeats can show.

Importing SciPy's special functions takes a tenth of a second. The functions import them when they
are first called, `load_special_functions` in advance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
MIN_EFFECTIVE = 5  # independent windows that a mean's interval needs
MIN_TAIL = 4  # independent requests beyond a percentile that its interval needs
# Standard errors that are added to an estimated autocorrelation, since an estimate from few
# observations is often too low: before it decides that there are enough, and before it is used
_DECIDING_ERRORS, _USED_ERRORS = 1.65, 0.5

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, in the unit of its value."""

    low: float
    high: float


def t_95(degrees: float) -> float:
    """Return the two-sided 95 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def load_special_functions() -> None:
    """Import what the intervals need, so that the first one during a measurement is not slow."""
    t_95(1)


def half_width(interval: Interval | None) -> float | None:
    """Return half the width of an interval as a share of its middle; None if there is none."""
    if interval is None:
        return None
    middle = abs(interval.high + interval.low) / 2
    return (interval.high - interval.low) / 2 / middle if middle else None


def mean_interval(
    values: Sequence[float] | Float64Array, min_effective: float = MIN_EFFECTIVE
) -> Interval | None:
    """Return the interval of the mean of the values of consecutive windows.

    Returns None if they are worth fewer than `min_effective` independent windows, or if one is NaN
    or infinite.

    The windows are taken as an AR(1) process. The lag-1 autocorrelation is corrected for its bias
    (Marriott and Pope, Biometrika 41, 1954) and gives the equivalent number of independent windows
    (von Storch and Zwiers, Statistical Analysis in Climate Research, section 6.6), from which
    Student's t gives the interval. `python -m benchmarks.statistics` prints its coverage.
    """
    n = len(values)
    if n < min_effective:
        return None
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        return None
    centred = array - array.mean()
    squares = float(centred @ centred)
    if squares == 0:
        return Interval(float(array.mean()), float(array.mean()))
    lag_1 = float(centred[:-1] @ centred[1:]) / squares
    lag_1 = min((n * lag_1 + 1) / (n - 4), 0.995)
    error = math.sqrt(max(1 - lag_1**2, 0.02) / n)
    if _effective(n, lag_1 + _DECIDING_ERRORS * error) < min_effective:
        return None
    effective = _effective(n, lag_1 + _USED_ERRORS * error)
    variance = squares / n * effective / (effective - 1)
    half = t_95(effective - 1) * math.sqrt(variance / effective)
    return Interval(float(array.mean()) - half, float(array.mean()) + half)


def percentile_interval(values: Sequence[float] | Float64Array, q: float) -> Interval | None:
    """Return a distribution-free interval of the percentile `q` (0..100) of consecutive requests.

    Returns None if there are too few values for their autocorrelation, or if one is NaN or
    infinite.

    The ends are order statistics, whose coverage is binomial for any distribution (Clopper and
    Pearson; David and Nagaraja, Order Statistics, 3rd ed., section 7.1), at the equivalent number
    of independent requests. That comes from the autocorrelation of the indicator of being at most
    the percentile, summed up by Geyer's initial monotone sequence (Statistical Science 7, 1992).
    """
    if not len(values) or not 0 < q < 100 or not np.isfinite(values).all():
        return None
    from scipy.special import betaincinv

    array, p = np.asarray(values, dtype=float), q / 100
    n, tail = len(array), min(p, 1 - p)
    # Most requests tell about the dependence at the median, few about that in the tail
    at_median = correlation_time(array <= np.quantile(array, 0.5))
    if n / at_median * tail < MIN_TAIL * 0.75:
        return None
    effective = n / max(correlation_time(array <= np.quantile(array, p)), at_median / 2)
    if effective * tail < MIN_TAIL:
        return None
    out = (1 - CONFIDENCE) / 2
    low = float(betaincinv(effective * p, effective * (1 - p) + 1, out))
    high = float(betaincinv(effective * p + 1, effective * (1 - p), 1 - out))
    first, last = math.floor(low * n) - 1, math.ceil(high * n)
    if first < 0 or last >= n:
        return None
    ordered = np.sort(array)
    return Interval(float(ordered[first]), float(ordered[last]))


def share_above(values: Sequence[float] | Float64Array, limit: float) -> Interval | None:
    """Return the interval (0..1) of the share of consecutive requests whose value is above `limit`.

    None for no value. It is Clopper and Pearson's, at the equivalent number of independent requests
    (see `percentile_interval`). A percentile is below the limit if the share above is small enough;
    this can be decided even if too few requests lie beyond the percentile for its own interval.
    """
    if not len(values):
        return None
    from scipy.special import betaincinv

    array = np.asarray(values, dtype=float)
    above = (array > limit).astype(float)
    at_median = correlation_time(array <= np.quantile(array, 0.5))
    time = max(correlation_time(above), at_median / 2)
    n, k, out = len(array) / time, float(above.sum()) / time, (1 - CONFIDENCE) / 2
    low = float(betaincinv(k, n - k + 1, out)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - out)) if k < n else 1.0
    return Interval(low, high)


def correlation_time(values: Sequence[float] | Float64Array) -> float:
    """Return how many consecutive values are worth one independent value: 1 or more.

    It is 1 + 2 times the sum of the autocorrelations, by Geyer's initial monotone sequence, and
    raised by its own relative error, about the square root of it over the number of values.
    """
    correlation = _autocorrelation(values)
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    monotone = np.minimum.accumulate(pairs)
    return _raised(2 * float(monotone[: _positive(monotone)].sum()) - 1, len(values))


def cross_correlation_time(x: Float64Array, y: Float64Array) -> float:
    """Return how many consecutive pairs are worth one independent pair, for their correlation.

    By Bartlett's formula (Journal of the Royal Statistical Society 98, 1935) it is 1 + 2 times the
    sum of the products of both autocorrelations, here up to the first that is not positive.
    """
    products = _autocorrelation(x) * _autocorrelation(y)
    return _raised(2 * float(products[: _positive(products)].sum()) - 1, len(x))


def _autocorrelation(values: Sequence[float] | Float64Array) -> Float64Array:
    """Return the autocorrelations up to a third of the values; 1 alone if they do not vary."""
    array = np.asarray(values, dtype=float)
    n, centred = len(array), array - array.mean()
    if n < 6 or not centred.any():
        return np.array([1.0, 0.0])
    spectrum = np.fft.rfft(centred, 2 * n)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum))[: n // 3 + 1]
    return np.asarray(covariance / covariance[0], dtype=np.float64)


def _positive(values: Float64Array) -> int:
    """Return how many values there are before the first that is not positive."""
    return int(np.argmax(values <= 0)) if (values <= 0).any() else len(values)


def _raised(time: float, n: int) -> float:
    time = max(time, 1.0)
    return time * (1 + math.sqrt(time / n))


def _effective(n: int, lag_1: float) -> float:
    """Return how many independent values `n` values of an AR(1) process are worth."""
    lag_1 = min(max(lag_1, 0.0), 0.995)
    return n * (1 - lag_1) / (1 + lag_1)
