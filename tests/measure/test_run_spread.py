"""The spread from run to run, and the differences that sweeps of such runs can see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from crossbench.measure.contrasts import compare_cells
from crossbench.measure.intervals import Interval
from crossbench.measure.run_spread import (
    equal_sweeps,
    run_spread,
    spread_in_blocks,
    spread_interval,
    visible_difference,
)


def interval_of(values: np.ndarray) -> Interval | None:
    found = compare_cells(values).pair(0, 1)
    assert found.low is not None
    assert found.high is not None
    return Interval(math.log(found.low), math.log(found.high))


def test_a_spread_counts_the_runs_that_have_a_value() -> None:
    values = np.array([[0.0, 0.1, np.nan], [0.2, 0.3, 0.1]])
    sd, degrees = run_spread(values) or (0.0, 0)
    assert sd == pytest.approx(np.std([0, 0.1, 0.2, 0.3, 0.1], ddof=1))
    assert degrees == 4
    assert run_spread(np.array([1.0, np.nan])) is None


def test_what_slows_a_whole_block_is_no_spread_inside_blocks() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(0, 0.02, (2, 400)) + generator.normal(0, 0.2, 400)
    sd, degrees = spread_in_blocks(values) or (0.0, 0)
    assert sd == pytest.approx(0.02, rel=0.1)
    assert degrees == 399
    values[0, 0] = np.nan
    assert (spread_in_blocks(values) or (0, 0))[1] == 398
    assert spread_in_blocks(values[:, :1]) is None


def test_the_interval_of_a_spread_holds() -> None:
    generator = np.random.default_rng(2)
    draws = generator.normal(0, 0.05, (2000, 8)).std(axis=1, ddof=1)
    inside = [(found := spread_interval(float(sd), 7)).low < 0.05 < found.high for sd in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("repeats", [3, 6])
def test_the_visible_difference_is_that_of_the_theory(repeats: int) -> None:
    """A paired t-test has this power by the noncentral t distribution."""
    seen = visible_difference(0.02, repeats, interval_of, seed=3)
    assert seen is not None
    shift = math.log1p(seen) / (0.02 * math.sqrt(2 / repeats))
    degrees = repeats - 1
    power = stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, shift)
    assert power == pytest.approx(0.9, abs=0.03)


def test_runs_are_cut_into_every_sweep_once() -> None:
    values = np.array([[0.0, 1.0, 2.0, 3.0, np.nan], [10.0, 11.0, 12.0, 13.0, 14.0]])
    sweeps = [sweep.tolist() for sweep in equal_sweeps(values, 3)]
    assert len(sweeps) == 4 * 4  # the blocks: 4 over 3; the runs in them: 2 to the power of 3, / 2
    seen = {tuple(map(tuple, sweep)) for sweep in sweeps}
    assert len(seen | {pair[::-1] for pair in seen}) == 2 * len(sweeps)
    for a, b in sweeps:
        assert sorted(abs(x - y) for x, y in zip(a, b, strict=True)) == [10, 10, 10]
