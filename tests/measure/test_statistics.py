"""Statistics compared with hand-computed values and with numpy and scipy as oracles."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from benchmarks.processes import ar_process
from benchmarks.queues import closed_queue
from crossbench.measure.intervals import mean_interval, percentile_interval, share_above, t_95
from crossbench.measure.statistics import (
    latency_range_table,
    percentile,
    percentile_supported,
    summarise,
    windows,
)
from crossbench.types import RequestRecord
from tests.helpers.records import record


def back_to_back(latencies_s: list[float], pairs: int = 10) -> list[RequestRecord]:
    ends = np.cumsum(latencies_s)
    return [
        record(float(end - latency), float(end), index=i, pairs=pairs)
        for i, (end, latency) in enumerate(zip(ends, latencies_s, strict=True))
    ]


def test_summary_of_three_requests_against_hand_computed_values() -> None:
    # One is due half a second before it is sent. The last one is sent at 3 s and fails at 4 s
    records = [
        record(0.0, 1.0),
        record(1.0, 3.0, due_s=0.5),
        record(3.0, 4.0, status="UNAVAILABLE"),
    ]
    metrics = summarise(records)
    assert metrics["requests/ok"] == 2
    assert metrics["requests/failed"] == 1
    assert metrics["requests/truncated_pairs"] == 2
    assert metrics["throughput/pairs_per_s"] == pytest.approx(20 / 3)
    assert metrics["throughput/requests_per_s"] == pytest.approx(2 / 3)
    assert metrics["throughput/tokens_per_s"] == pytest.approx(1600 / 3)
    assert metrics["throughput/span_pairs_per_s"] == pytest.approx(20 / 4)
    # Latencies 1000 and 2500 ms, service times 1000 and 2000 ms.
    assert metrics["latency/p50_ms"] == pytest.approx(1750)
    assert metrics["latency/p75_ms"] == pytest.approx(1000 + 0.75 * 1500)
    assert metrics["latency/mean_ms"] == pytest.approx(1750)
    assert metrics["latency/min_ms"] == pytest.approx(1000)
    assert metrics["latency/max_ms"] == pytest.approx(2500)
    assert metrics["latency/std_ms"] == pytest.approx(1500 / math.sqrt(2))
    assert metrics["service/max_ms"] == pytest.approx(2000)
    assert metrics["stage/overhead_mean_ms"] == pytest.approx(1500 - 8)
    assert metrics["stage/infer_p95_ms"] == pytest.approx(5)


def test_percentiles_are_type_7() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=137)
    ordered = np.sort(values)
    for q in (50, 75, 90, 95, 99):
        position = (len(values) - 1) * q / 100  # Hyndman and Fan's definition 7
        low = int(position)
        expected = ordered[low] + (position - low) * (ordered[low + 1] - ordered[low])
        assert percentile(values, q) == pytest.approx(expected)


def test_one_request() -> None:
    metrics = summarise([record(0.0, 0.5)])
    assert metrics["throughput/pairs_per_s"] == pytest.approx(20)
    assert metrics["latency/p99_ms"] == pytest.approx(500)
    assert "latency/std_ms" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())
    table = latency_range_table([record(0.0, 0.5)])
    assert [row.requests for row in table] == [0, 0, 0, 1]
    assert table[0].mean_pairs_per_s is None


@pytest.mark.parametrize("records", [[], [record(0.0, 0.5, status="INTERNAL")] * 3])
def test_no_successful_request(records: list[RequestRecord]) -> None:
    assert summarise(records) == {
        "requests/ok": 0,
        "requests/failed": len(records),
        "requests/truncated_pairs": 0,
    }
    assert len(windows(records)) == 0
    assert latency_range_table(records) == []


def test_instant_replies_stay_finite() -> None:
    records = [record(0.0, 0.0)] * 3
    assert "throughput/pairs_per_s" not in summarise(records)
    assert len(windows(records)) == 0


def test_a_percentile_needs_five_observations_beyond_it() -> None:
    least = {q: min(n for n in range(1, 600) if percentile_supported(q, n)) for q in (50, 90, 99)}
    assert least == {50: 10, 90: 50, 99: 500}


def test_latency_ranges_against_hand_computed_values() -> None:
    # Latencies 100..1000 ms: P50 = 550, P75 = 775, P90 = 910; throughput = 10 / latency.
    table = latency_range_table(back_to_back([0.1 * k for k in range(1, 11)]))
    assert [row.label for row in table] == ["< P50", "P50-P75", "P75-P90", ">= P90"]
    assert [row.requests for row in table] == [5, 2, 2, 1]
    rates = [100 / k for k in range(1, 6)]
    assert table[0].mean_pairs_per_s == pytest.approx(sum(rates) / 5)
    assert (table[0].min_pairs_per_s, table[0].max_pairs_per_s) == pytest.approx((20, 100))
    assert table[3].mean_pairs_per_s == pytest.approx(10)


def test_windows_against_hand_computed_values() -> None:
    # 0.4 s a request, so windows of five medians, 2 s; span 5.2 s: two windows and 1.2 s.
    cut = windows(back_to_back([0.4] * 13))
    assert cut.length_s == pytest.approx(2.0)
    assert cut.time_s == pytest.approx((2.0, 4.0, 5.2))
    assert cut.pairs_per_s == pytest.approx((25.0, 25.0, 25.0))
    assert cut.p50_ms == pytest.approx((400, 400, 400))
    assert sum(cut.requests) == 13


def test_short_remainder_joins_the_window_before() -> None:
    cut = windows(back_to_back([0.1] * 24))  # 2.4 s in windows of one second
    assert cut.time_s == pytest.approx((1.0, 2.4))
    assert cut.pairs_per_s == pytest.approx((100.0, 100.0))


def test_a_request_across_windows_counts_by_its_share() -> None:
    # Quick ones keep the window at a second; the last is in the model from 0.5 to 2.5 s.
    records = [*back_to_back([0.1] * 5), record(0.5, 2.5, infer_ms=2000)]
    cut = windows(records)
    assert cut.time_s == pytest.approx((1.0, 2.0, 2.5))
    assert cut.pairs_per_s == pytest.approx((50 + 2.5, 5.0, 2.5 / 0.5))
    assert cut.p50_ms == pytest.approx((100, 2000, 2000))
    # The long request is 4.8 % of the first window's 5.25 requests, just beyond the p95
    assert cut.p95_ms == pytest.approx((100, 2000, 2000))
    assert cut.requests == (5, 0, 1)


def test_windows_conserve_the_number_of_pairs() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 2, 7, 300):
        sent = np.sort(rng.uniform(0, 20, n))
        records = [
            record(s, s + d, pairs=int(p))
            for s, d, p in zip(
                sent.tolist(), rng.gamma(1.0, 0.5, n).tolist(), rng.integers(1, 99, n), strict=True
            )
        ]
        cut = windows(records)
        lengths = np.diff(cut.time_s, prepend=sent[0])
        assert lengths @ np.array(cut.pairs_per_s) == pytest.approx(sum(r.pairs for r in records))
        assert sum(cut.requests) == n


def test_an_idle_window_has_no_latency_and_is_not_in_the_series() -> None:
    cut = windows([*back_to_back([0.1] * 10), record(3.0, 3.1), record(3.1, 3.9)])
    assert cut.p50_ms[1:3] == (None, None)
    assert cut.pairs_per_s[1:3] == pytest.approx((0, 0))
    assert cut.series()["time_s"] == pytest.approx([1.0, 3.9])


def test_the_percentile_interval_has_its_coverage() -> None:
    rng = np.random.default_rng(4)
    for n, q in ((100, 50), (100, 90), (500, 95), (1000, 99)):
        truth, runs = stats.norm.ppf(q / 100), 400
        found = [percentile_interval(rng.standard_normal(n), q) for _ in range(runs)]
        given = [interval for interval in found if interval is not None]
        hits = sum(interval.low <= truth <= interval.high for interval in given)
        assert len(given) > 0.9 * runs
        assert 0.93 <= hits / len(given) <= 0.995
    assert percentile_interval(list(range(100)), 99) is None
    assert percentile_interval([], 50) is None


def test_a_percentile_of_requests_that_depend_on_each_other() -> None:
    """With the binomial distribution of independent requests, half of the intervals missed it."""
    found = [percentile_interval(run, 50) for run in ar_process(500, 0.9, 300, seed=5)]
    given = [interval for interval in found if interval is not None]
    assert len(given) > 250
    assert sum(interval.low <= 0 <= interval.high for interval in given) >= 0.93 * len(given)


@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (60, 2.000), (120, 1.980)],
)
def test_t_equals_printed_tables(degrees: int, printed: float) -> None:
    assert round(t_95(degrees), 3) == printed


def test_the_mean_interval_has_its_coverage_and_widens() -> None:
    rng = np.random.default_rng(3)
    for n, phi in ((30, 0.0), (60, 0.3), (120, 0.6), (240, 0.9)):
        found = [mean_interval(run) for run in 100 + ar_process(n, phi, 400, seed=3)]
        given = [interval for interval in found if interval is not None]
        assert len(given) > 200
        hits = sum(interval.low <= 100 <= interval.high for interval in given)
        assert hits / len(given) >= (0.93 if phi < 0.9 else 0.9)
    slow = np.repeat([90.0, 110.0, 95.0, 105.0], 30)
    trending, shuffled = mean_interval(slow), mean_interval(rng.permutation(slow))
    assert trending is None
    assert shuffled is not None
    assert mean_interval([1.0] * 4) is None
    assert mean_interval([2.0] * 5) is not None


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("requests", [20, 100])
@pytest.mark.parametrize("cv", [0.0, 0.3, 0.6])
def test_throughput_of_simulated_queues(workers: int, requests: int, cv: float) -> None:
    """Eight users; the mean of 400 runs is within 2 % of the truth, and its noise is below that."""
    rng = np.random.default_rng(3)
    shape = 1 / cv**2 if cv else 0.0

    def service_s() -> float:
        return float(rng.gamma(shape, 1 / shape)) if cv else 1.0

    found = []
    for _ in range(400):
        records = closed_queue(requests, 8, workers, service_s)
        found.append(summarise(records)["throughput/pairs_per_s"] / workers)
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_work_is_not_counted_before_it_is_done() -> None:
    """Four users of one steady worker: each window has what was computed in it, the first too."""
    cut = windows(closed_queue(200, 4, 1, lambda: 0.05, pairs=5))
    assert cut.pairs_per_s == pytest.approx([100.0] * len(cut))


def test_the_share_above_a_limit_is_seldom_said_to_be_small_if_it_is_not() -> None:
    """The limit is the true p95, so 5 % are above it: "less" and "more" are both wrong."""
    for phi in (0.0, 0.6, 0.9):
        logs = ar_process(200, phi, 400, seed=8)
        limit = NormalDist().inv_cdf(0.95)
        found = [share_above(run, limit) for run in logs]
        assert sum(share is not None and share.high < 0.05 for share in found) <= 20
        assert sum(share is not None and share.low > 0.05 for share in found) <= 20
    sure = share_above(ar_process(200, 0.3, 1, seed=8)[0], 9.0)
    assert sure is not None
    assert (sure.low, sure.high < 0.05) == (0.0, True)
    assert share_above([], 1.0) is None
