"""Comparisons of independent runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from crossbench.measure.contrasts import Allowance, Difference
from crossbench.measure.welch import independent_contrast, samples, share_of_alpha

ASSUMED = Allowance(0.05, math.inf, "an assumption")


def test_one_repeated_cell_is_compared_as_welch_does() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(3, 0.02, 6), generator.normal(3.1, 0.06, 4)
    (left,), (right,) = samples([a], ASSUMED), samples([b], ASSUMED)
    found = independent_contrast(left, right, margin=0.02, alpha=0.05)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval()
    assert found.low is not None
    assert found.high is not None
    assert math.log(found.low) == pytest.approx(expected.low)
    assert math.log(found.high) == pytest.approx(expected.high)
    assert found.ratio == pytest.approx(math.exp(b.mean() - a.mean()))


def test_cells_that_ran_once_get_the_allowance() -> None:
    (left,), (right,) = (samples([np.array([value])], ASSUMED) for value in (0.0, 0.2))
    found = independent_contrast(left, right, margin=0.02, alpha=0.05)
    assert found.low == pytest.approx(math.exp(0.2 - 1.96 * 0.05 * math.sqrt(2)), rel=1e-4)
    assert found.difference is Difference.HIGHER
    nearer = independent_contrast(left, left, margin=0.02, alpha=0.05)
    assert nearer.difference is Difference.UNKNOWN
    assert nearer.more_blocks is not None
    assert 40 < nearer.more_blocks < 100


def test_equal_values_are_the_same() -> None:
    (sample,) = samples([np.zeros(3)], ASSUMED)
    found = independent_contrast(sample, sample, margin=0.02, alpha=0.05)
    assert (found.ratio, found.difference) == (1, Difference.SAME)


@pytest.mark.parametrize(("cells", "runs"), [(1, 3), (4, 3), (4, 6)])
def test_the_intervals_of_equal_cells_hold_together(cells: int, runs: int) -> None:
    """600 comparisons of two sweeps of equal cells, whose spreads differ."""
    generator = np.random.default_rng(7)
    spreads = np.linspace(0.02, 0.05, cells)[:, None]
    wrong = 0
    for _ in range(600):
        sides = [samples(list(generator.normal(0, spreads, (cells, runs))), ASSUMED) for _ in "ab"]
        alpha = share_of_alpha(0.05, cells)
        found = [
            independent_contrast(a, b, margin=0, alpha=alpha) for a, b in zip(*sides, strict=True)
        ]
        wrong += any(item.difference in (Difference.HIGHER, Difference.LOWER) for item in found)
    assert wrong / 600 < 0.08  # 5 % and over three standard errors
