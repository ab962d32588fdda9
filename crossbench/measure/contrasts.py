"""Comparisons of a sweep's cells, from one value for each cell and block.

The values are logarithms, so that a difference is the logarithm of a ratio. The model is cell +
block + error. A pair of cells is compared by its differences within the blocks, so what slows a
whole block cancels out. The spread of a pair's differences is estimated from few blocks. It is
therefore moderated: the pair's own variance is averaged with that of all cells, which counts as
much as `PRIOR_DEGREES` degrees of freedom (as in Smyth, Statistical Applications in Genetics and
Molecular Biology 3, 2004, with a fixed prior weight). Fewer than `LEAST_BLOCKS` blocks say too
little about the spread: then an allowance is used, as for cells that were measured once.
`multiplicity` has the critical values.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.intervals import Interval, t_95
from crossbench.measure.multiplicity import dunnett, tukey

Float64Array = NDArray[np.float64]
_Factor = Callable[[int, float, float], float]

# What the spread of all cells counts in that of a pair. With more, a noisy cell among quiet ones is
# called different too often
PRIOR_DEGREES = 1.0
LEAST_BLOCKS = 3  # from which on the spread is estimated from the sweep itself
MOST_BLOCKS = 100  # more further blocks than this are not advised
ALPHA = 0.05


class Difference(StrEnum):
    """The verdict on the ratio of two values."""

    HIGHER = "higher"
    LOWER = "lower"
    SAME = "the same"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Allowance:
    """The spread from run to run that is assumed for cells that were measured once.

    `relative_sd` is the standard deviation of the logarithm, 0.05 for 5 %, with its degrees of
    freedom, infinite for an assumption. `source` says where it comes from.
    """

    relative_sd: float
    degrees: float
    source: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """The ratio of two cells' values with its simultaneous interval, and the verdict.

    `low` and `high` are None if nothing is known about the spread. `more_blocks` is the number of
    further blocks that would probably decide an undecided contrast, None if it is over 100, the
    spread is only assumed, or the contrast is decided.
    """

    ratio: float
    low: float | None
    high: float | None
    difference: Difference
    more_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class BlockFit:
    """The least-squares fit of the model cell + block + error.

    `means` are the cells' means as if each had run in every block, of shape (cells,). A cell that
    shares no block with the others, also through further cells, keeps the mean of its own runs.
    `error` is the mean square of the errors with its `degrees` of freedom; 0 if there are none.
    """

    means: Float64Array
    error: float
    degrees: int


def fit_blocks(log_values: Float64Array) -> BlockFit:
    """Fit cell + block + error to values of shape (cells, blocks), NaN where a run is missing.

    A cell without any value has the mean NaN.
    """
    known = np.isfinite(log_values)
    cells, blocks = np.nonzero(known)
    count, (rows, columns) = len(cells), log_values.shape
    design = np.zeros((count, rows + columns))
    design[np.arange(count), cells] = 1
    design[np.arange(count), rows + blocks] = 1
    values = log_values[cells, blocks]
    found, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    measured, used = known.any(axis=1), known.any(axis=0)
    means = np.full(rows, math.nan)
    if rank == measured.sum() + used.sum() - 1:  # all are connected, so each sum can be estimated
        means[measured] = found[:rows][measured] + found[rows:][used].mean()
    else:
        means[measured] = np.nanmean(log_values[measured], axis=1)
    degrees = count - int(rank)
    error = float(((values - design @ found) ** 2).sum()) / degrees if degrees else 0.0
    return BlockFit(means, error, degrees)


def difference_of(middle: float, half: float, margin: float) -> Difference:
    """Return the verdict on a logarithm of a ratio with an interval of `middle` ± `half`."""
    limit, low, high = math.log1p(margin), middle - half, middle + half
    if -limit <= low and high <= limit:
        return Difference.SAME
    if low > 0 and high > limit:
        return Difference.HIGHER
    if high < 0 and low < -limit:
        return Difference.LOWER
    return Difference.UNKNOWN


def fewest(decided: Callable[[int], bool]) -> int | None:
    """Return the fewest further blocks with which `decided` holds; None if over 100 are needed."""
    if not decided(MOST_BLOCKS):
        return None
    return bisect_left(range(1, MOST_BLOCKS), True, key=decided) + 1


@dataclass(frozen=True, slots=True)
class _Spread:
    """The variance of one difference in a block, its degrees of freedom, the common blocks."""

    variance: float
    degrees: float
    blocks: int


@dataclass(frozen=True)
class Contrasts:
    """The comparisons of cells; make it with `compare_cells`."""

    log_values: Float64Array
    within_sd: Float64Array
    allowance: Allowance | None
    margin: float
    alpha: float

    @property
    def cells(self) -> int:
        return len(self.log_values)

    def pair(self, a: int, b: int) -> Contrast:
        """Return the contrast of cell `a` with cell `b`, simultaneous over all pairs (Tukey)."""
        return self._contrast(a, b, tukey, self.cells)

    def against(self, baseline: int) -> list[Contrast]:
        """Return the contrast of each cell with the baseline, simultaneous over these (Dunnett)."""
        return [
            self._contrast(cell, baseline, dunnett, self.cells - 1)
            if cell != baseline
            else Contrast(1.0, 1.0, 1.0, Difference.SAME)
            for cell in range(self.cells)
        ]

    @cached_property
    def fit(self) -> BlockFit:
        """The fit of all values; its means are the cells' values without the blocks' effects."""
        return fit_blocks(self.log_values)

    @property
    def spread_is_measured(self) -> bool:
        """Whether these values show the spread from run to run; else the allowance is used."""
        return self.fit.degrees > 0 and self.log_values.shape[1] >= LEAST_BLOCKS

    @cached_property
    def smallest_ratios(self) -> tuple[float, float] | None:
        """The ratios from which on a difference can be told, of the best and of the worst pair.

        Each is at least the margin, inside which cells may be the same. None without such pairs.
        """
        halves = [
            tukey(self.cells, spread.degrees, self.alpha)
            * math.sqrt(spread.variance / spread.blocks)
            for a, b in itertools.combinations(range(self.cells), 2)
            if (spread := self._spread(a, b)) is not None
        ]
        if not halves:
            return None
        least, greatest = (
            max(math.exp(half), 1 + self.margin) for half in (min(halves), max(halves))
        )
        return least, greatest

    def variance_of_mean(self, cell: int) -> float | None:
        """The variance of a cell's mean apart from that of the blocks; None if it is unknown."""
        blocks = int(np.isfinite(self.log_values[cell]).sum())
        if self.spread_is_measured:
            return self.fit.error / blocks
        return None if self.allowance is None else self.allowance.relative_sd**2 / blocks

    def interval(self, cell: int) -> Interval | None:
        """Return the 95 % interval of a cell's mean.

        It is about another run of the same configuration, so it contains the spread of the blocks.
        None if no cell has `LEAST_BLOCKS` blocks, or this one has only one.
        """
        counts = np.isfinite(self.log_values).sum(axis=1)
        degrees = float(np.maximum(counts - 1, 0).sum())
        own = counts[cell] - 1
        if own < 1 or counts.max() < LEAST_BLOCKS:
            return None
        means = np.nanmean(self.log_values, axis=1, keepdims=True)
        squares = np.nansum((self.log_values - means) ** 2, axis=1)
        prior = min(PRIOR_DEGREES, degrees - own)
        variance = (prior * squares.sum() / degrees + squares[cell]) / (prior + own)
        half = t_95(prior + own) * math.sqrt(variance / counts[cell])
        middle = float(self.fit.means[cell])
        return Interval(math.exp(middle - half), math.exp(middle + half))

    def _contrast(self, a: int, b: int, factor: _Factor, count: int) -> Contrast:
        differences = self._differences(a, b)
        spread = self._spread(a, b)
        if spread is None:
            gap = float(self.fit.means[a] - self.fit.means[b])
            return Contrast(math.exp(gap), None, None, Difference.UNKNOWN)
        middle = float(differences.mean())
        half = factor(count, spread.degrees, self.alpha) * math.sqrt(
            spread.variance / spread.blocks
        )
        found = difference_of(middle, half, self.margin)
        more = None
        if found is Difference.UNKNOWN and self.spread_is_measured:
            more = self._more_blocks(middle, spread, factor, count)
        low, high = math.exp(middle - half), math.exp(middle + half)
        return Contrast(math.exp(middle), low, high, found, more)

    def _more_blocks(
        self, middle: float, spread: _Spread, factor: _Factor, count: int
    ) -> int | None:
        """The fewest further blocks with which the same difference and spread would decide."""

        def decided(more: int) -> bool:
            own = spread.blocks + more - 1
            if own + 1 < LEAST_BLOCKS:
                return False
            degrees = own + min(PRIOR_DEGREES, (self.cells - 2) * own)
            half = factor(count, degrees, self.alpha) * math.sqrt(spread.variance / (own + 1))
            return difference_of(middle, half, self.margin) is not Difference.UNKNOWN

        return fewest(decided)

    def _differences(self, a: int, b: int) -> Float64Array:
        """The differences of two cells in the blocks that both have."""
        differences: Float64Array = self.log_values[a] - self.log_values[b]
        return differences[np.isfinite(differences)]

    def _spread(self, a: int, b: int) -> _Spread | None:
        differences = self._differences(a, b)
        blocks, own = len(differences), len(differences) - 1
        if blocks == 0:
            return None
        if not self.spread_is_measured:
            if self.allowance is None:
                return None
            within = float(np.nanmean(self.within_sd[a] ** 2 + self.within_sd[b] ** 2))
            # Two blocks say little about the spread, but it is hardly less than what they show
            seen = max(2 * self.fit.error, float(differences.var(ddof=1)) if own else 0.0)
            variance = max(2 * self.allowance.relative_sd**2 + within, seen)
            return _Spread(variance, self.allowance.degrees, blocks)
        prior = min(PRIOR_DEGREES, self.fit.degrees - own)
        squares = float(((differences - differences.mean()) ** 2).sum())
        variance = (prior * 2 * self.fit.error + squares) / (prior + own)
        return _Spread(variance, prior + own, blocks)


def compare_cells(
    log_values: Float64Array,
    *,
    within_sd: Float64Array | None = None,
    allowance: Allowance | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> Contrasts:
    """Return the comparisons of cells, (cells, blocks), NaN where a run is missing.

    With fewer than `LEAST_BLOCKS` blocks, the spread from run to run is `allowance`, and
    `within_sd`, of the same shape, is the standard deviation of each value as far as its own run
    shows it. Both are on the log scale. `margin` is the relative difference within which cells are
    the same.
    """
    known = np.zeros_like(log_values) if within_sd is None else within_sd
    return Contrasts(log_values, known, allowance, margin, alpha)
