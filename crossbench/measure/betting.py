"""Tests and bounds of means of bounded values, valid for every distribution and sample size.

A bootstrap of values of which none has changed has no width, so it excludes rare losses that the
sample happens not to contain. A test by betting (Waudby-Smith and Ramdas, Estimating means of
bounded random variables by betting, JRSS B 86(1), 2024) does not: it bets that the mean is above
zero. If it is not, no bet gains on average, so the wealth reaches 1 / ERROR with a probability of
at most ERROR (Markov's inequality; Ville's says the same of any time while values are added).

The wealth here is that of several bettors, each with a constant bet, so it does not depend on the
order of the values. Most of the wealth is with the largest bet, which is the best one if changes
are small or rare. If no value has changed, about as many values are needed as with an exact
binomial bound (Clopper-Pearson) on the share of values that might have been lost completely.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ERROR = 0.025  # the probability of a wrong decision, one-sided
# Bets as a share of the largest possible one, and the initial wealth of each; chosen with the
# development seeds of benchmarks/keeps.py
_BETS = np.array([1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16])
_WEALTH = np.array([0.8, 0.05, 0.05, 0.05, 0.05])
_NEEDED = -math.log(ERROR)
_STEPS = 50  # of the bisection: 2^-50 of the range

Float64Array = NDArray[np.float64]


def is_positive(values: Float64Array, lowest: float) -> bool:
    """Return whether the mean of the values' distribution is shown to be above zero.

    `values` are (n,) independent draws, none below `lowest`, which is negative. If the mean is zero
    or less, the answer is wrong with a probability of at most `ERROR`.
    """
    wealth = _log_growths(values, lowest).sum(axis=0) + np.log(_WEALTH)
    return bool(np.logaddexp.reduce(wealth) >= _NEEDED)


def values_needed(values: Float64Array, lowest: float) -> int | None:
    """Return about how many values like these would show that the mean is above zero.

    None if the values do not suggest that it is.
    """
    if not len(values):
        return None
    growth = _log_growths(values, lowest).mean(axis=0)
    needed = [
        math.ceil((_NEEDED - math.log(wealth)) / rate)
        for rate, wealth in zip(growth, _WEALTH, strict=True)
        if rate > 0
    ]
    return min(needed, default=None)


def lowest_ratio(a: Float64Array, b: Float64Array) -> float:
    """Return the lower confidence bound of mean(a) / mean(b), of paired values (n,) in [0, 1].

    The ratio of the distribution's means is below the bound with a probability of at most `ERROR`.
    The bound is above a ratio if and only if `is_positive(a - ratio * b, -ratio)`.
    """
    low, high = 0.0, 1 / max(float(b.mean()), 1e-9)  # mean(a) is at most 1
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_positive(a - middle * b, -middle) else (low, middle)
    return low


def _log_growths(values: Float64Array, lowest: float) -> Float64Array:
    """Return the logarithm of the growth of the wealth by value and bet: (n, bets)."""
    with np.errstate(divide="ignore"):  # the largest bet loses everything with the lowest value
        growths: Float64Array = np.log1p(np.maximum(np.outer(values / -lowest, _BETS), -1.0))
    return growths
