"""Ranking metrics compared with hand-computed values, coverage of the bootstrap, and verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from crossbench.measure.ranking import (
    ScoredList,
    Verdict,
    bootstrap_interval,
    bootstrap_means,
    judge,
    kendall_tau,
    quality_metrics,
    ranking,
)
from crossbench.types import Float32Array


def scores(*values: float) -> Float32Array:
    return np.array(values, dtype=np.float32)


def a_list(
    served: Float32Array,
    reference: Float32Array | None = None,
    relevance: tuple[int | None, ...] | None = None,
    elsewhere: tuple[int, ...] = (),
    query: str = "q",
) -> ScoredList:
    ids = tuple(f"p{index}" for index in range(len(served)))
    return ScoredList(query, ids, served, reference, relevance, elsewhere)


def test_drift_against_hand_computed_values() -> None:
    lists = [
        a_list(scores(3, 2, 1), scores(3, 2.5, 1)),  # the same order
        a_list(scores(1, 2, 3), scores(1, 3, 2)),  # one of three pairs is reversed: tau 1/3
    ]
    metrics = quality_metrics(lists, seed=0)
    assert metrics["quality/max_abs_diff"] == 1.0
    assert metrics["quality/mean_abs_diff"] == pytest.approx((0.5 + 1 + 1) / 6)
    assert metrics["quality/kendall_tau"] == pytest.approx((1 + 1 / 3) / 2)
    assert (metrics["quality/queries"], metrics["quality/pairs"]) == (2, 6)
    # There are no judgements, and the top ten of three passages cannot change
    assert not {"quality/ndcg_at_10", "quality/top10_overlap"} & metrics.keys()
    assert judge(metrics).verdict is Verdict.UNSURE


def test_tau_of_ties() -> None:
    a, b = scores(1, 2, 2, 3), scores(1, 2, 3, 4)
    # tau-b: 5 concordant pairs, one tied in a: 5 / sqrt(5 * 6)
    assert kendall_tau(a, b) == pytest.approx(5 / math.sqrt(30))
    assert kendall_tau(scores(1, 1, 1, 1), b) == 0.0
    assert kendall_tau(b, scores(1, 1, 1, 1)) is None


def test_top_ten_in_common() -> None:
    reference = np.arange(20, 0, -1).astype(np.float32)
    served = reference.copy()
    served[[9, 10]] = served[[10, 9]]  # rank 10 and rank 11
    metrics = quality_metrics([a_list(served, reference), a_list(reference, reference)], seed=0)
    assert metrics["quality/top10_overlap"] == pytest.approx((0.9 + 1.0) / 2)


def test_ndcg_and_mrr_against_hand_computed_values() -> None:
    # Ranked p2 (grade 1), p0 (3), p1 (not judged), p3 (0); a grade 2 was never retrieved
    item = a_list(scores(2, 1, 3, 0), None, (3, None, 1, 0), (2,))
    gain = 1 / math.log2(2) + 3 / math.log2(3)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    metrics = quality_metrics([item], seed=0)
    assert metrics["quality/ndcg_at_10"] == pytest.approx(gain / ideal)
    assert metrics["quality/mrr_at_10"] == 0.5  # with grades 0 to 3, grade 1 is not relevant
    assert "quality/ndcg_at_10_change" not in metrics  # no reference
    assert "quality/ndcg_at_10_low" not in metrics  # there is no interval for one query


def test_binary_judgements_and_queries_without_judgements() -> None:
    selected = a_list(scores(2, 3), None, (1, 0))
    nothing = a_list(scores(2, 3), None, (0, 0))
    metrics = quality_metrics([selected, nothing], seed=0)
    assert metrics["quality/judged_queries"] == 1
    assert metrics["quality/mrr_at_10"] == 0.5
    assert metrics["quality/ndcg_at_10"] == pytest.approx(1 / math.log2(3))


def test_only_the_first_ten_count() -> None:
    relevance = (0,) * 10 + (1,)
    metrics = quality_metrics([a_list(-np.arange(11).astype(np.float32), None, relevance)], 0)
    assert (metrics["quality/ndcg_at_10"], metrics["quality/mrr_at_10"]) == (0, 0)


def test_ties_do_not_depend_on_the_order_of_the_input() -> None:
    ids, values = ("b", "c", "a"), scores(1, 1, 2)
    turned = ranking(ids[::-1], values[::-1])
    assert [ids[place] for place in ranking(ids, values)] == ["a", "c", "b"]
    assert [ids[::-1][place] for place in turned] == ["a", "c", "b"]
    one = ScoredList("q", ids, values, None, (1, 0, 0))
    other = ScoredList("q", ids[::-1], values[::-1], None, (0, 0, 1))
    assert quality_metrics([one], 0) == quality_metrics([other], 0)


def test_the_bootstrap_interval_has_its_coverage() -> None:
    """A 95 % interval contains the true mean in about 95 % of small, skewed samples."""
    rng, held, trials = np.random.default_rng(7), 0, 100
    for trial in range(trials):
        sample = rng.exponential(1.0, size=(30, 1))
        found = bootstrap_interval(bootstrap_means(sample, trial)[:, 0], 30)
        assert found is not None
        held += found.low <= 1.0 <= found.high
    assert 0.89 <= held / trials <= 0.98


def test_the_bootstrap_is_seeded_and_paired() -> None:
    sample = np.random.default_rng(1).normal(size=(20, 1))
    both = np.hstack([sample, sample + 1])
    means = bootstrap_means(both, 3)
    assert np.allclose(means[:, 1] - means[:, 0], 1)
    assert np.array_equal(means, bootstrap_means(both, 3))
    assert not np.array_equal(means, bootstrap_means(both, 4))


def judged_lists(noise: float, count: int = 40, seed: int = 0) -> list[ScoredList]:
    """Return lists whose reference ranks well and whose served scores have noise."""
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(count):
        grades = rng.integers(0, 4, 20)
        reference = (grades + rng.normal(0, 0.5, 20)).astype(np.float32)
        served = (reference + rng.normal(0, noise, 20)).astype(np.float32)
        lists.append(a_list(served, reference, tuple(grades.tolist())))
    return lists


def test_verdicts() -> None:
    same = judge(quality_metrics(judged_lists(0.0), 0))
    assert same.verdict is Verdict.KEEPS
    assert "100.0 % of the fp32 reference's" in same.reason
    assert judge(quality_metrics(judged_lists(0.01), 0)).verdict is Verdict.KEEPS
    lost = quality_metrics(judged_lists(2.0), 0)
    assert judge(lost).verdict is Verdict.CHANGES
    assert lost["quality/ndcg_at_10_change_high"] < -0.01
    few = judge(quality_metrics(judged_lists(2.0, count=9), 0))
    assert few.verdict is Verdict.UNSURE
    assert "too few judged queries: 9" in few.reason
    # With twelve queries, a loss of about 1 % allows both verdicts
    unsure = judge(quality_metrics(judged_lists(0.25, count=12, seed=3), 0))
    assert unsure.verdict is Verdict.UNSURE
    assert "more queries are needed" in unsure.reason


def test_no_verdict_if_the_reference_finds_nothing() -> None:
    nothing = [replace(item, relevance=(0,) * 20, other_grades=(3,)) for item in judged_lists(0.0)]
    metrics = quality_metrics(nothing, 0)
    assert metrics["quality/ndcg_at_10"] == 0
    assert judge(metrics).verdict is Verdict.UNSURE


def test_no_metrics_without_lists() -> None:
    assert quality_metrics([], 0) == {}
