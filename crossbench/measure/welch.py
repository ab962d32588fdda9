"""Comparisons of runs that were measured at different times, such as those of two sweeps.

Nothing slows both alike, so no blocks cancel out and no values are paired: the runs of each side
are independent samples. The interval of their ratio is Welch's, with Satterthwaite's degrees of
freedom (Biometrika 34, 1947). All values are logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.contrasts import (
    LEAST_BLOCKS,
    PRIOR_DEGREES,
    Allowance,
    Contrast,
    Difference,
    difference_of,
    fewest,
)

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """The runs of a cell: their mean and number, the variance of one run, and its degrees.

    `assumed` says whether the variance is an allowance, because the runs are too few to show it.
    """

    mean: float
    runs: int
    variance: float
    degrees: float
    assumed: bool

    def with_spread_of(self, other: Sample) -> Sample:
        """Return this sample with the variance of the same cell elsewhere, if it is larger.

        An allowance must not be smaller than what other runs of the cell show.
        """
        if not self.assumed or other.variance <= self.variance:
            return self
        return replace(self, variance=other.variance, degrees=other.degrees)


def samples(cells: Sequence[Float64Array], allowance: Allowance) -> list[Sample]:
    """Return the sample of each cell of one sweep, from the values of its runs, each of shape (n,).

    The variance of a cell that was repeated is moderated, as in `contrasts`: its own is averaged
    with that of all cells, which counts as much as `PRIOR_DEGREES`. A cell with fewer runs than
    `LEAST_BLOCKS` gets the allowance, or its own variance if that is larger.
    """
    squares = [float(((values - values.mean()) ** 2).sum()) for values in cells]
    degrees = sum(len(values) - 1 for values in cells)
    found = []
    for values, own_squares in zip(cells, squares, strict=True):
        own = len(values) - 1
        assumed = len(values) < LEAST_BLOCKS
        if assumed:
            variance = max(allowance.relative_sd**2, own_squares / own if own else 0.0)
            own_degrees = allowance.degrees
        else:
            prior = min(PRIOR_DEGREES, degrees - own)
            own_degrees = prior + own
            variance = (prior * sum(squares) / degrees + own_squares) / own_degrees
        found.append(Sample(float(values.mean()), len(values), variance, own_degrees, assumed))
    return found


def independent_contrast(a: Sample, b: Sample, *, margin: float, alpha: float) -> Contrast:
    """Return the contrast of `b` with `a`: the ratio is b / a.

    `more_blocks` is the number of further runs that both would need.
    """
    middle = b.mean - a.mean
    half = _half_width(a, b, alpha)
    found = difference_of(middle, half, margin)
    more = _more_runs(a, b, middle, margin, alpha) if found is Difference.UNKNOWN else None
    ends = math.exp(middle - half), math.exp(middle + half)
    return Contrast(math.exp(middle), *ends, found, more)


def share_of_alpha(alpha: float, comparisons: int) -> float:
    """Return the error that each of several independent comparisons may have (Šidák, 1967)."""
    return -math.expm1(math.log1p(-alpha) / comparisons)


def _more_runs(a: Sample, b: Sample, middle: float, margin: float, alpha: float) -> int | None:
    """Return the fewest further runs of both that would decide, if nothing else changed."""

    def decided(runs: int) -> bool:
        half = _half_width(_more(a, runs), _more(b, runs), alpha)
        return difference_of(middle, half, margin) is not Difference.UNKNOWN

    return fewest(decided)


def _half_width(a: Sample, b: Sample, alpha: float) -> float:
    from scipy.special import stdtrit

    of_a, of_b = a.variance / a.runs, b.variance / b.runs
    variance: float = of_a + of_b
    if variance == 0:
        return 0.0
    spread = of_a**2 / a.degrees + of_b**2 / b.degrees
    degrees = variance**2 / spread if spread else math.inf
    return float(stdtrit(degrees, 1 - alpha / 2)) * math.sqrt(variance)


def _more(sample: Sample, runs: int) -> Sample:
    return replace(sample, runs=sample.runs + runs, degrees=sample.degrees + runs)
