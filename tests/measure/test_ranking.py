"""Ranking metrics compared with hand-computed values, coverage of the bootstrap, and verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from crossbench.measure.betting import is_positive, lowest_ratio, values_needed
from crossbench.measure.bootstrap import bootstrap_interval, bootstrap_means
from crossbench.measure.ranking import Judgement, Verdict, judge
from crossbench.measure.ranking_metrics import (
    ScoredList,
    kendall_tau,
    quality_metrics,
    query_qualities,
    ranking,
)
from crossbench.types import Float32Array


def scores(*values: float) -> Float32Array:
    return np.array(values, dtype=np.float32)


def metrics_of(lists: Sequence[ScoredList]) -> dict[str, float]:
    return quality_metrics(query_qualities(lists), seed=0)


def judged(lists: Sequence[ScoredList]) -> Judgement:
    queries = query_qualities(lists)
    return judge(queries, quality_metrics(queries, seed=0))


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
    metrics = metrics_of(lists)
    assert metrics["quality/max_abs_diff"] == 1.0
    assert metrics["quality/mean_abs_diff"] == pytest.approx((0.5 + 1 + 1) / 6)
    assert metrics["quality/kendall_tau"] == pytest.approx((1 + 1 / 3) / 2)
    assert (metrics["quality/queries"], metrics["quality/pairs"]) == (2, 6)
    # There are no judgements, and the top ten of three passages cannot change
    assert not {"quality/ndcg_at_10", "quality/top10_overlap"} & metrics.keys()


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
    metrics = metrics_of([a_list(served, reference), a_list(reference, reference)])
    assert metrics["quality/top10_overlap"] == pytest.approx((0.9 + 1.0) / 2)


def test_ndcg_and_mrr_against_hand_computed_values() -> None:
    # Ranked p2 (grade 1), p0 (3), p1 (not judged), p3 (0); a grade 2 was never retrieved
    item = a_list(scores(2, 1, 3, 0), None, (3, None, 1, 0), (2,))
    gain = 1 / math.log2(2) + 3 / math.log2(3)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    metrics = metrics_of([item])
    assert metrics["quality/ndcg_at_10"] == pytest.approx(gain / ideal)
    assert metrics["quality/mrr_at_10"] == 0.5  # with grades 0 to 3, grade 1 is not relevant
    assert "quality/ndcg_at_10_change" not in metrics  # no reference
    assert "quality/ndcg_at_10_low" not in metrics  # there is no interval for one query


def test_binary_judgements_and_queries_without_judgements() -> None:
    selected = a_list(scores(2, 3), None, (1, 0))
    nothing = a_list(scores(2, 3), None, (0, 0))
    metrics = metrics_of([selected, nothing])
    assert metrics["quality/judged_queries"] == 1
    assert metrics["quality/mrr_at_10"] == 0.5
    assert metrics["quality/ndcg_at_10"] == pytest.approx(1 / math.log2(3))


def test_only_the_first_ten_count() -> None:
    relevance = (0,) * 10 + (1,)
    metrics = metrics_of([a_list(-np.arange(11).astype(np.float32), None, relevance)])
    assert (metrics["quality/ndcg_at_10"], metrics["quality/mrr_at_10"]) == (0, 0)


def test_ties_do_not_depend_on_the_order_of_the_input() -> None:
    ids, values = ("b", "c", "a"), scores(1, 1, 2)
    turned = ranking(ids[::-1], values[::-1])
    assert [ids[place] for place in ranking(ids, values)] == ["a", "c", "b"]
    assert [ids[::-1][place] for place in turned] == ["a", "c", "b"]
    one = ScoredList("q", ids, values, None, (1, 0, 0))
    other = ScoredList("q", ids[::-1], values[::-1], None, (0, 0, 1))
    assert metrics_of([one]) == metrics_of([other])


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


def test_a_harmless_change_is_shown_by_many_queries_only() -> None:
    queries = query_qualities(judged_lists(0.02)) * 17
    many = judge(queries, quality_metrics(queries, seed=0))
    assert many.verdict is Verdict.KEEPS
    assert "over 680 queries" in many.reason
    few = judged(judged_lists(0.05))
    assert few.verdict is Verdict.UNSURE
    assert "about 480 queries would probably decide it" in few.reason
    assert "the order changed in" in few.reason


def test_a_large_loss_is_shown_by_few_queries() -> None:
    lost = judged_lists(2.0)
    assert judged(lost).verdict is Verdict.CHANGES
    assert metrics_of(lost)["quality/ndcg_at_10_change_high"] < -0.01
    few = judged(lost[:9])
    assert few.verdict is Verdict.UNSURE
    assert "too few queries: 9" in few.reason


def test_the_same_order_is_a_verdict_of_its_own() -> None:
    same = judged(judged_lists(0.0))
    assert same.verdict is Verdict.SAME_ORDER
    assert same.same_scores
    assert "same order on all 40 checked queries; the scores are the same" in same.reason
    drifted = [
        replace(item, scores=(2 * item.scores).astype(np.float32)) for item in judged_lists(0.0)
    ]
    found = judged(drifted)
    assert found.verdict is Verdict.SAME_ORDER
    assert not found.same_scores
    assert "queries would exclude a rare loss" in found.reason
    unjudged = [replace(item, relevance=None) for item in drifted]
    assert judged(unjudged).verdict is Verdict.SAME_ORDER
    swapped = [replace(item, relevance=None) for item in judged_lists(0.5)]
    assert "no query has a passage judged relevant" in judged(swapped).reason


def test_a_tie_that_rounding_breaks_is_no_change_of_order() -> None:
    def same(served: Float32Array, reference: Float32Array) -> bool | None:
        return query_qualities([a_list(served, reference)])[0].same_order

    assert same(scores(1, 1 + 1e-7, 3), scores(1 + 1e-7, 1, 3))
    assert not same(scores(1, 1.01, 3), scores(1.01, 1, 3))
    assert not same(scores(1, 1, 1), scores(1, 2, 3))  # it has lost the order
    assert not same(scores(2, 1, 3), scores(1, 1, 3))  # equal scores rank by id, p1 first


def test_no_verdict_if_the_reference_finds_nothing() -> None:
    nothing = [replace(item, relevance=(0,) * 20, other_grades=(3,)) for item in judged_lists(0.5)]
    assert metrics_of(nothing)["quality/ndcg_at_10"] == 0
    assert judged(nothing).verdict is Verdict.UNSURE


def test_no_metrics_without_lists() -> None:
    assert query_qualities([]) == []
    assert quality_metrics([], 0) == {}


def test_the_bound_by_betting_is_near_the_exact_binomial_one_if_nothing_changed() -> None:
    """A share p of total losses is seen in n queries unless (1 - p)^n is above 2.5 %."""
    same = np.full(200, 0.7)
    bound = lowest_ratio(same, same)
    lost = 1 - 0.025 ** (1 / 200)  # Clopper-Pearson
    assert 1 - 1.2 * lost / 0.7 < bound < 1 - lost / 0.7
    assert is_positive(same - 0.999 * bound * same, -0.999 * bound)
    assert not is_positive(same - 1.001 * bound * same, -1.001 * bound)
    needed = values_needed(0.01 * same, -0.99)
    assert needed is not None
    assert not is_positive(np.full(int(0.95 * needed), 0.007), -0.99)
    assert is_positive(np.full(needed, 0.007), -0.99)
    assert values_needed(-same, -0.99) is None
    assert values_needed(same[:0], -0.99) is None


def test_a_total_loss_with_the_largest_bet_leaves_the_other_bets() -> None:
    values = np.append(np.full(2000, 0.1), -0.99)
    assert is_positive(values, -0.99)
