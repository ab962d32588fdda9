"""How much runs of one cell differ, and which differences sweeps of such cells can see.

All values are logarithms, so that a standard deviation of 0.05 means 5 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.contrasts import fit_blocks
from crossbench.measure.intervals import CONFIDENCE, Interval

POWER = 0.9  # the share of sweeps that find a difference which is called visible
_SIMULATIONS = 500

Float64Array = NDArray[np.float64]
# Returns the interval of the first cell over the second, as logarithms; shape of (2, blocks)
IntervalOf = Callable[[Float64Array], Interval | None]


def run_spread(values: Float64Array) -> tuple[float, int] | None:
    """Return the standard deviation of these runs of one cell, and its degrees of freedom.

    None for fewer than two runs. NaN marks a run without a value.
    """
    known = values[np.isfinite(values)]
    return (float(known.std(ddof=1)), len(known) - 1) if len(known) > 1 else None


def spread_in_blocks(values: Float64Array) -> tuple[float, int] | None:
    """Return the spread that is left without the differences of cells and of blocks.

    `values` has the shape (cells, blocks), with NaN for a run without a value. It is the residual
    of a two-way analysis of variance, with its degrees of freedom. None for too few blocks.
    """
    fit = fit_blocks(values)
    return (math.sqrt(fit.error), fit.degrees) if fit.degrees else None


def spread_interval(sd: float, degrees: int) -> Interval:
    """Return the 95 % interval of a standard deviation of normal values (chi-squared)."""
    from scipy.special import gammaincinv

    tail = (1 - CONFIDENCE) / 2
    upper, lower = (2 * float(gammaincinv(degrees / 2, p)) for p in (1 - tail, tail))
    return Interval(sd * math.sqrt(degrees / upper), sd * math.sqrt(degrees / lower))


def visible_difference(sd: float, repeats: int, interval_of: IntervalOf, seed: int) -> float | None:
    """Return the least relative difference that `POWER` of the sweeps of two cells find.

    Each cell has `repeats` runs whose spread inside blocks is `sd`. In simulated sweeps of equal
    cells, a true difference d would move the interval by d, and is found if the interval then
    excludes 0. So d is a quantile of the distance from 0 to the interval's lower end. None if
    `interval_of` gives no interval.
    """
    draws = np.random.default_rng(seed)
    lows = []
    for _ in range(_SIMULATIONS):
        found = interval_of(draws.normal(0, sd, (2, repeats)))
        if found is None:
            return None
        lows.append(-found.low)
    return math.expm1(float(np.quantile(lows, POWER)))


def equal_sweeps(values: Float64Array, repeats: int) -> Iterator[Float64Array]:
    """Yield every sweep of two equal cells, of shape (2, repeats), that these runs can be cut into.

    `values` has the shape (2, blocks), two runs of one cell per block. A sweep takes the runs of
    `repeats` blocks; which run of a block belongs to which cell is tried in every way, but not the
    mirror image of a sweep. The sweeps share runs, so they are not independent.
    """
    complete = values[:, np.isfinite(values).all(axis=0)]
    for blocks in itertools.combinations(range(complete.shape[1]), repeats):
        chosen = complete[:, blocks]
        for swaps in itertools.product((False, True), repeat=repeats - 1):
            swapped = np.array([False, *swaps])
            yield np.where(swapped, chosen[::-1], chosen)
