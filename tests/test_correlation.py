"""Correlations against numpy and scipy, and where they are undefined."""

import math

import numpy as np
import pytest

from crossbench.measure.correlation import correlation_metrics, correlations, pearson
from crossbench.types import RequestRecord


def closed_loop(latencies_s: list[float], tokens: list[int] | None = None) -> list[RequestRecord]:
    """One request in flight, 32 pairs each."""
    records, now = [], 0.0
    for i, latency in enumerate(latencies_s):
        size = tokens[i] if tokens else 2600
        records.append(RequestRecord(i, now, now, now + latency, 32, size, 0, 0.1, 0.1, 1.0, "OK"))
        now += latency
    return records


def test_pearson_and_fisher_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    x = rng.normal(size=40)
    y = 0.5 * x + rng.normal(size=40)
    found, expected = pearson(x, y), stats.pearsonr(x, y)
    assert found is not None
    assert found.interval is not None
    assert found.r == pytest.approx(expected.statistic)
    low, high = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([1, 2], [2, 1]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.1 + 0.2, 0.3, 0.3])],
)
def test_undefined(x: list[float], y: list[float]) -> None:
    assert pearson(x, y) is None


def test_three_points_have_no_interval_and_a_line_a_degenerate_one() -> None:
    three, line = pearson([1, 2, 3], [3, 1, 2]), pearson([1, 2, 3, 4], [8, 6, 4, 2])
    assert three is not None
    assert (three.r, three.interval) == (pytest.approx(-0.5), None)
    assert line is not None
    assert line.r == pytest.approx(-1.0)


def test_constant_batch_is_minus_one_by_construction() -> None:
    rng = np.random.default_rng(6)
    tokens = rng.integers(2000, 3000, 400)
    latencies = (tokens * 2e-5 + rng.normal(0, 1e-4, 400)).tolist()
    found = correlations(closed_loop(latencies, tokens.tolist()))
    assert found["request"].r < -0.98
    assert found["tokens"].r > 0.95
    assert found["window"].n == 19  # 20 s, less the window in which the load drains


def test_constant_latency_defines_nothing() -> None:
    assert correlation_metrics(closed_loop([0.125] * 100)) == {}
    assert correlation_metrics([]) == {}


def test_metrics_are_finite_and_few_windows_leave_one_out() -> None:
    metrics = correlation_metrics(closed_loop([0.1, 0.2, 0.15, 0.12]))
    assert "correlation/request" in metrics
    assert "correlation/window" not in metrics
    assert metrics["correlation/request_n"] == 4
    assert all(math.isfinite(value) for value in metrics.values())
