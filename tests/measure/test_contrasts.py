"""Comparisons of cells hold together, and agree with SciPy and with published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from crossbench.measure.contrasts import (
    Allowance,
    Contrasts,
    Difference,
    compare_cells,
)
from crossbench.measure.multiplicity import alpha_of_look, dunnett, tukey

ASSUMED = Allowance(0.1, math.inf, "10 %")


def sweep(seed: int, sds: list[float], blocks: int, shift: float = 0.0) -> Contrasts:
    """Cells with the given spreads; the second one is higher by `shift`, and blocks drift."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (len(sds), blocks)) * np.array(sds)[:, None]
    values += np.linspace(0, -0.08, blocks)
    values[1] += shift
    return compare_cells(values, allowance=ASSUMED, margin=0.02)


def test_two_cells_are_compared_by_the_paired_t_test() -> None:
    found = sweep(1, [0.05, 0.03], 6)
    contrast = found.pair(0, 1)
    ends = stats.ttest_rel(found.log_values[0], found.log_values[1]).confidence_interval(0.95)
    assert contrast.low == pytest.approx(math.exp(ends.low), rel=1e-5)
    assert contrast.high == pytest.approx(math.exp(ends.high), rel=1e-5)


@pytest.mark.parametrize(
    ("cells", "degrees", "factor"),
    # Studentized range at 5 %, divided by the root of two: Harter, Tables of range, 1960
    [(3, 10, 3.88), (6, 20, 4.45), (10, 60, 4.65), (5, math.inf, 3.86)],
)
def test_tukey(cells: int, degrees: float, factor: float) -> None:
    assert tukey(cells, degrees, 0.05) * math.sqrt(2) == pytest.approx(factor, abs=0.006)


@pytest.mark.parametrize(
    ("comparisons", "degrees", "factor"),
    # Two-sided, at 5 %: Dunnett, Biometrics 20, 1964
    [(2, 10, 2.57), (5, 20, 2.72), (9, 60, 2.76), (3, math.inf, 2.35)],
)
def test_dunnett(comparisons: int, degrees: float, factor: float) -> None:
    assert dunnett(comparisons, degrees, 0.05) == pytest.approx(factor, abs=0.02)


def test_a_shift_of_a_block_changes_nothing() -> None:
    before = sweep(2, [0.05] * 4, 5)
    shifted = before.log_values + np.array([0.5, -0.3, 0.0, 0.2, 1.0])
    after = compare_cells(shifted, allowance=ASSUMED, margin=0.02)
    for a, b in ((0, 1), (2, 3), (3, 0)):
        one, other = before.pair(a, b), after.pair(a, b)
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
        assert one.difference is other.difference


def test_both_directions_agree() -> None:
    found = sweep(3, [0.02] * 5, 6, shift=0.2)
    forth, back = found.pair(1, 0), found.pair(0, 1)
    assert forth.difference is Difference.HIGHER
    assert back.difference is Difference.LOWER
    assert back.low is not None
    assert forth.high == pytest.approx(1 / back.low)
    assert found.against(0)[1].difference is Difference.HIGHER
    assert found.against(0)[0].difference is Difference.SAME


def test_missing_runs_leave_the_blocks_that_both_cells_have() -> None:
    values = sweep(4, [0.02] * 3, 6, shift=0.3).log_values.copy()
    values[1, 2] = values[2, :5] = np.nan
    found = compare_cells(values, allowance=ASSUMED, margin=0.02)
    assert found.pair(1, 0).difference is Difference.HIGHER
    alone = found.pair(2, 0)  # one common block: its spread is that of the other cells
    assert alone.low is not None
    assert alone.low < 1 / 1.02
    values[2] = np.nan
    values[2, 2] = 0.0
    never = compare_cells(values, margin=0.02).pair(1, 2)
    assert (never.low, never.difference) == (None, Difference.UNKNOWN)


def test_one_run_each_uses_the_allowance_and_the_spread_within_the_run() -> None:
    values = np.log([[100.0], [130.0], [220.0]])
    found = compare_cells(values, allowance=ASSUMED, margin=0.02)
    assert found.pair(1, 0).difference is Difference.UNKNOWN
    assert found.pair(2, 0).difference is Difference.HIGHER
    assert found.smallest_ratios == pytest.approx([math.exp(3.314 * 0.1)] * 2, rel=1e-3)
    assert found.interval(0) is None
    noisy = compare_cells(values, within_sd=np.full((3, 1), 0.4), allowance=ASSUMED, margin=0.02)
    assert noisy.pair(2, 0).difference is Difference.UNKNOWN
    assert compare_cells(values, margin=0.02).pair(2, 0).difference is Difference.UNKNOWN


def test_equal_values_are_the_same_and_cause_no_error() -> None:
    found = compare_cells(np.zeros((3, 4)), margin=0.02)
    assert found.pair(0, 1).difference is Difference.SAME
    assert found.interval(0) == found.interval(2)
    assert found.smallest_ratios == (1.02, 1.02)  # the margin


def test_within_the_margin_is_the_same_whatever_its_sign() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0, 0.0005, (2, 6))
    values[1] += 0.01
    assert compare_cells(values, margin=0.02).pair(1, 0).difference is Difference.SAME
    assert compare_cells(values, margin=0.005).pair(1, 0).difference is Difference.HIGHER


def test_more_blocks_would_decide() -> None:
    found = sweep(6, [0.05] * 2, 3, shift=0.1).pair(1, 0)
    assert found.difference is Difference.UNKNOWN
    assert found.more_blocks is not None
    assert 1 <= found.more_blocks <= 20
    clear = sweep(6, [0.005] * 2, 3, shift=0.1).pair(1, 0)
    assert (clear.difference, clear.more_blocks) == (Difference.HIGHER, None)


@pytest.mark.parametrize("sds", [[0.05] * 6, [0.086] * 3 + [0.022] * 3])
def test_equal_cells_are_seldom_called_different(sds: list[float]) -> None:
    wrong = {"baseline": 0, "order": 0}
    for seed in range(100):
        found = sweep(1000 + seed, sds, 3)
        different = {Difference.HIGHER, Difference.LOWER}
        wrong["baseline"] += any(item.difference in different for item in found.against(0))
        pairs = [found.pair(a, b).difference for a in range(6) for b in range(a)]
        wrong["order"] += bool(different.intersection(pairs))
    assert wrong["baseline"] / 100 < 0.14  # 5 %, and 4 standard errors of 100 sweeps
    assert wrong["order"] / 100 < 0.14


def test_all_looks_spend_five_percent() -> None:
    shares = [alpha_of_look(block, 12, 3, 0.05) for block in range(3, 13)]
    assert sum(shares) == pytest.approx(0.05)
    assert shares[0] < 0.001 < shares[-1]
    with pytest.raises(ValueError, match="after block 3 to 12"):
        alpha_of_look(2, 12, 3, 0.05)
