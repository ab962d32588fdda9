"""Metrics of ranking quality: drift, rank agreement, nDCG@10 and MRR@10.

A list is ranked by descending score, and for equal scores by descending passage id as in trec_eval,
so that the order of the input does not matter. nDCG and RR come from ir-measures: linear gains over
log2 of the rank as in trec_eval and the TREC Deep Learning track, divided by the value of the ideal
ranking of *all* passages judged for the query. If there are grades above 1, RR counts a passage as
relevant from grade 2 on, as that track does, and otherwise from 1 (`is_selected`). Means are over
queries with at least one relevant passage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.betting import lowest_ratio
from crossbench.measure.bootstrap import bootstrap_interval, bootstrap_means
from crossbench.measure.finite import check_finite
from crossbench.measure.intervals import Interval
from crossbench.types import Float32Array, QueryQuality

CUTOFF = 10
_TIE = 1e-6  # scores this close, relative to their size, may swap by rounding alone

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredList:
    """A query's passages with the served scores and, if available, the reference scores.

    `scores` and `reference` are float32 (n,). `relevance` and `other_grades` are as in
    QueryPassages. Without `one_scale`, differences between the two have no meaning.
    """

    query_id: str
    passage_ids: tuple[str, ...]
    scores: Float32Array
    reference: Float32Array | None
    relevance: tuple[int | None, ...] | None = None
    other_grades: tuple[int, ...] = ()
    one_scale: bool = True

    @property
    def grades(self) -> list[int]:
        """All grades of the query."""
        candidates = [grade for grade in self.relevance or () if grade is not None]
        return [*candidates, *self.other_grades]

    @property
    def relevant(self) -> bool:
        """Whether a passage of the query is judged relevant."""
        return any(grade > 0 for grade in self.grades)

    @property
    def order_matters(self) -> bool:
        """Whether the candidates have different grades, so that their order affects nDCG."""
        return len({max(grade or 0, 0) for grade in self.relevance or ()}) > 1


def query_qualities(lists: Sequence[ScoredList]) -> list[QueryQuality]:
    """Return the quality of every query. All of them or none must have reference scores.

    Raises:
        NonFiniteValues: a served score or a reference score is NaN or infinite.
    """
    for item in lists:
        check_finite(item.scores, f"scores of query {item.query_id}")
        if item.reference is not None:
            check_finite(item.reference, f"reference scores of query {item.query_id}")
    relevant = [index for index, item in enumerate(lists) if item.relevant]
    judged = [lists[index] for index in relevant]
    threshold = 2 if max((max(item.grades) for item in judged), default=0) > 1 else 1
    gains, reciprocals = _effectiveness(judged, [item.scores for item in judged], threshold)
    references = [item.reference for item in judged if item.reference is not None]
    best: list[float | None] = [None] * len(judged)
    if references:
        best = [*_effectiveness(judged, references, threshold)[0].tolist()]
    found = dict(zip(relevant, zip(gains.tolist(), reciprocals.tolist(), best, strict=True),
                     strict=True))  # fmt: skip
    return [
        _query_quality(item, *found.get(index, (None, None, None)))
        for index, item in enumerate(lists)
    ]


def quality_metrics(queries: Sequence[QueryQuality], seed: int) -> dict[str, float]:
    """Return the metrics `quality/…`, without those that lack judgements or reference scores.

    Intervals are 95 % bootstrap intervals over the queries. `quality/ndcg_at_10_change` is the
    relative change of the mean from the reference's, paired by query: -0.01 is a loss of 1 %. The
    low end of its interval is a bound by betting, because a bootstrap excludes rare losses that the
    sample does not contain (see `betting.py`).
    """
    if not queries:
        return {}
    metrics = {
        "quality/queries": float(len(queries)),
        "quality/pairs": float(sum(query.pairs for query in queries)),
        **_drift(queries),
    }
    judged = [query for query in queries if query.relevant]
    if not judged:
        return metrics
    n, with_reference = len(judged), judged[0].reference_ndcg is not None
    table = np.array(
        [[query.ndcg, query.rr, query.reference_ndcg or 0.0] for query in judged], dtype=np.float64
    )
    means = bootstrap_means(table, seed)
    metrics["quality/judged_queries"] = float(n)
    for column, name in enumerate(("ndcg_at_10", "mrr_at_10")):
        metrics[f"quality/{name}"] = float(table[:, column].mean())
        metrics |= _bounds(name, bootstrap_interval(means[:, column], n))
    if with_reference and table[:, 2].mean() > 0:
        metrics["quality/ndcg_at_10_change"] = float(table[:, 0].mean() / table[:, 2].mean()) - 1
        if (high := highest_change(means[:, 0], means[:, 2], n)) is not None:
            low = lowest_ratio(table[:, 0], table[:, 2]) - 1
            metrics |= _bounds("ndcg_at_10_change", Interval(low, high))
    return metrics


def without_change_interval(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics without the interval of the change of nDCG@10.

    If the scores are the same, the cell ranks other queries as the reference does, too.
    """
    ends = ("quality/ndcg_at_10_change_low", "quality/ndcg_at_10_change_high")
    return {name: value for name, value in metrics.items() if name not in ends}


def highest_change(means: Float64Array, references: Float64Array, n: int) -> float | None:
    """Return the high end of the relative change's 95 % interval over `n` queries, None for n < 2.

    `means` and `references` are resampled means of nDCG@10 from the same draws.
    """
    possible = references > 0
    found = bootstrap_interval(means[possible] / references[possible] - 1, n)
    return None if found is None else found.high


def ranking(passage_ids: Sequence[str], scores: Float32Array) -> list[int]:
    """Return list positions by rank: by descending score, and for equal scores by descending id.

    Raises:
        NonFiniteValues: a score is NaN or infinite.
    """
    check_finite(np.asarray(scores), "scores to rank by")
    by_id = sorted(range(len(passage_ids)), key=passage_ids.__getitem__, reverse=True)
    order = np.argsort(-np.asarray(scores)[by_id], kind="stable")
    return [by_id[index] for index in order]


def kendall_tau(a: Float32Array, b: Float32Array) -> float | None:
    """Return Kendall's tau-b of two score arrays (n,), or None if `b` is constant.

    If only `a` is constant, it has lost the order and tau is 0.

    Raises:
        NonFiniteValues: a score is NaN or infinite.
    """
    from scipy.stats import kendalltau

    check_finite(a, "scores")
    check_finite(b, "the reference's scores")
    if len(b) < 2 or np.all(b == b[0]):
        return None
    value = float(kendalltau(a, b).statistic)
    return value if math.isfinite(value) else 0.0


def _query_quality(
    item: ScoredList, ndcg: float | None, rr: float | None, reference_ndcg: float | None
) -> QueryQuality:
    differences, tau, overlap, same = None, None, None, None
    if item.reference is not None:
        if item.one_scale:
            differences = np.abs(item.scores.astype(np.float64) - item.reference)
        tau = kendall_tau(item.scores, item.reference)
        same = _same_order(item, item.reference)
        # In a list of ten or fewer passages, the first ten never change
        if len(item.scores) > CUTOFF:
            common = {*_top(item, item.scores)} & {*_top(item, item.reference)}
            overlap = len(common) / CUTOFF
    return QueryQuality(
        query_id=item.query_id,
        pairs=len(item.scores),
        relevant=item.relevant,
        order_matters=item.order_matters,
        ndcg=ndcg,
        rr=rr,
        reference_ndcg=reference_ndcg,
        max_abs_diff=None if differences is None else float(differences.max()),
        mean_abs_diff=None if differences is None else float(differences.mean()),
        tau=tau,
        top10_overlap=overlap,
        same_order=same,
    )


def _same_order(item: ScoredList, reference: Float32Array) -> bool:
    """Return whether the served order is the reference's, apart from ties broken by rounding.

    Equal scores of passages that the reference distinguishes are another order.
    """
    tie = _TIE * max(1.0, float(np.abs(reference).max()))
    served, expected = (values.astype(np.float64) for values in (item.scores, reference))
    order = ranking(item.passage_ids, reference)
    if ranking(item.passage_ids, item.scores) == order:
        lost = (np.diff(served[order]) == 0) & (np.diff(expected[order]) < -tie)
        return not bool(lost.any())
    by_served, by_reference = (values[:, None] - values for values in (served, expected))
    reversed_pair = by_served * by_reference <= 0  # swapped, or tied in one of the two
    beyond_rounding = (np.abs(by_served) > tie) | (np.abs(by_reference) > tie)
    return not bool((reversed_pair & beyond_rounding).any())


def _drift(queries: Sequence[QueryQuality]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    largest = [query.max_abs_diff for query in queries if query.max_abs_diff is not None]
    if len(largest) == len(queries):
        total = sum((query.mean_abs_diff or 0.0) * query.pairs for query in queries)
        metrics["quality/max_abs_diff"] = max(largest)
        metrics["quality/mean_abs_diff"] = total / sum(query.pairs for query in queries)
    taus = [query.tau for query in queries if query.tau is not None]
    if taus:
        metrics["quality/kendall_tau"] = sum(taus) / len(taus)
    overlaps = [query.top10_overlap for query in queries if query.top10_overlap is not None]
    if overlaps:
        metrics["quality/top10_overlap"] = sum(overlaps) / len(overlaps)
    return metrics


def _top(item: ScoredList, scores: Float32Array) -> list[int]:
    return ranking(item.passage_ids, scores)[:CUTOFF]


def _effectiveness(
    lists: Sequence[ScoredList], scores: Sequence[Float32Array], threshold: int
) -> tuple[Float64Array, Float64Array]:
    """Return nDCG@10 and RR@10 of every list with `scores`, each float64 (len(lists),)."""
    from ir_measures import RR, Qrel, ScoredDoc, evaluator, nDCG

    gain, reciprocal = nDCG @ CUTOFF, RR(rel=threshold) @ CUTOFF
    qrels, run = [], []
    for number, (item, values) in enumerate(zip(lists, scores, strict=True)):
        query = str(number)
        # Use positions as ids and ranks as scores, since ranking() has already resolved ties
        for place, grade in enumerate(item.relevance or ()):
            if grade is not None:
                qrels.append(Qrel(query, str(place), max(grade, 0)))
        for index, grade in enumerate(item.other_grades):
            qrels.append(Qrel(query, f"other {index}", max(grade, 0)))
        for rank, place in enumerate(ranking(item.passage_ids, values)):
            run.append(ScoredDoc(query, str(place), float(-rank)))
    found = {gain: np.zeros(len(lists)), reciprocal: np.zeros(len(lists))}
    for value in evaluator([gain, reciprocal], qrels).iter_calc(run):
        found[value.measure][int(value.query_id)] = value.value
    return found[gain], found[reciprocal]


def _bounds(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {f"quality/{name}_low": interval.low, f"quality/{name}_high": interval.high}
