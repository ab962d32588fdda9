"""Correlations against SciPy and Fisher's formula, and where they are undefined."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.processes import ar_process
from crossbench.measure.correlation import (
    correlation_intervals,
    correlation_metrics,
    correlations,
    pearson,
)
from crossbench.measure.intervals import Interval, cross_correlation_time
from crossbench.types import RequestRecord


def closed_loop(latencies_s: list[float], tokens: list[int] | None = None) -> list[RequestRecord]:
    """Return consecutive requests with 32 pairs each, one in flight at a time."""
    records, now = [], 0.0
    for i, latency in enumerate(latencies_s):
        size = tokens[i] if tokens else 2600
        records.append(RequestRecord(i, now, now, now + latency, 32, size, 0, 0.1, 0.1, 1.0, "OK"))
        now += latency
    return records


def test_pearson_agrees_with_scipy_and_its_interval_with_fishers_formula() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=40)
    y = 0.5 * x + rng.normal(size=40)
    found = pearson(x, y)
    assert found is not None
    assert found.r == pytest.approx(stats.pearsonr(x, y).statistic)
    independent = 40 / cross_correlation_time(found.x, found.y)
    assert 30 < independent < 40
    interval, half = found.interval(), stats.norm.ppf(0.975) / math.sqrt(independent - 3)
    assert interval is not None
    assert interval.low == pytest.approx(math.tanh(math.atanh(found.r) - half))
    assert interval.high == pytest.approx(math.tanh(math.atanh(found.r) + half))


def test_the_interval_holds_for_values_that_depend_on_those_before() -> None:
    """Fisher's interval at all 200 observations would contain the truth, 0, in 78 % of the runs."""
    runs = 300
    x, y = ar_process(200, 0.8, runs, seed=1), ar_process(200, 0.6, runs, seed=2)
    found = [correlation.interval() for pair in zip(x, y, strict=True)
             if (correlation := pearson(*pair)) is not None]  # fmt: skip
    covered = [interval.low <= 0 <= interval.high for interval in found if interval is not None]
    assert len(covered) == runs
    assert 0.93 <= sum(covered) / runs <= 0.99


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 2], [2, 1]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.1 + 0.2, 0.3, 0.3])],
)
def test_undefined_correlations(x: list[float], y: list[float]) -> None:
    assert pearson(x, y) is None


def test_no_interval_for_three_points_and_a_degenerate_one_for_a_line() -> None:
    three, line = pearson([1, 2, 3], [3, 1, 2]), pearson([1, 2, 3, 4], [8, 6, 4, 2])
    assert three is not None
    assert (three.r, three.interval()) == (pytest.approx(-0.5), None)
    assert line is not None
    assert line.r == pytest.approx(-1.0)
    assert line.interval() == Interval(-1.0, -1.0)


def test_constant_batch_is_minus_one_by_construction() -> None:
    rng = np.random.default_rng(6)
    tokens = rng.integers(2000, 3000, 400)
    latencies = (tokens * 2e-5 + rng.normal(0, 1e-4, 400)).tolist()
    found = correlations(closed_loop(latencies, tokens.tolist()))
    assert found["request"].r < -0.98
    assert found["tokens"].r > 0.95
    assert found["window"].n == 19  # 20 s, less the window in which the load drains


def test_constant_latency_gives_no_correlation() -> None:
    assert correlation_metrics(closed_loop([0.125] * 100)) == {}
    assert correlation_metrics([]) == correlation_intervals([]) == {}


def test_metrics_are_finite_and_few_windows_leave_one_out() -> None:
    records = closed_loop([0.1, 0.2, 0.15, 0.12, 0.11, 0.16, 0.13])
    metrics = {**correlation_metrics(records), **correlation_intervals(records)}
    assert "correlation/request" in metrics
    assert "correlation/window" not in metrics
    assert metrics["correlation/request_n"] == 7
    low, high = metrics["correlation/request_low"], metrics["correlation/request_high"]
    assert low < metrics["correlation/request"] < high
    assert all(math.isfinite(value) for value in metrics.values())
