"""Metrics of ranking quality: drift, rank agreement, nDCG@10 and MRR@10, and the verdict.

A list is ranked by descending score, and for equal scores by descending passage id as in trec_eval,
so that the order of the input does not matter. nDCG and RR come from ir-measures: linear gains over
log2 of the rank as in trec_eval and the TREC Deep Learning track, divided by the value of the ideal
ranking of *all* passages judged for the query. If there are grades above 1, RR counts a passage as
relevant from grade 2 on, as that track does, and otherwise from 1 (`is_selected`). Means are over
queries with at least one relevant passage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from crossbench.errors import NonFiniteValues
from crossbench.measure.intervals import Interval, t_95
from crossbench.types import Float32Array
from crossbench.wording import counted, percent

CUTOFF = 10
KEPT = 0.99  # share of the reference's nDCG@10 that a ranking must reach
MIN_QUERIES = 10  # fewer queries allow no conclusion
RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500  # limits memory for many queries

Float64Array = NDArray[np.float64]


class Verdict(StrEnum):
    """The verdict of the quality check on a cell."""

    KEEPS = "keeps"  # nDCG@10 is at least 99 % of the reference's
    CHANGES = "changes"  # nDCG@10 is less than 99 % of the reference's
    UNSURE = "cannot say"  # there are too few queries, or the interval contains 99 %
    REFERENCE = "reference"  # the cell itself computes the reference scores
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class ScoredList:
    """A query's passages with the served scores and, if available, the reference scores.

    `scores` and `reference` are float32 (n,). `relevance` and `other_grades` are as in
    QueryPassages.
    """

    query_id: str
    passage_ids: tuple[str, ...]
    scores: Float32Array
    reference: Float32Array | None
    relevance: tuple[int | None, ...] | None = None
    other_grades: tuple[int, ...] = ()

    @property
    def grades(self) -> list[int]:
        """All grades of the query."""
        candidates = [grade for grade in self.relevance or () if grade is not None]
        return [*candidates, *self.other_grades]

    @property
    def judged(self) -> bool:
        """Whether the query has a relevant passage."""
        return any(grade > 0 for grade in self.grades)

    @property
    def order_matters(self) -> bool:
        """Whether the candidates have different grades, so that their order affects nDCG."""
        return len({max(grade or 0, 0) for grade in self.relevance or ()}) > 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the reason for it."""

    verdict: Verdict
    reason: str


def quality_metrics(lists: Sequence[ScoredList], seed: int) -> dict[str, float]:
    """Return the metrics `quality/…`, without those that lack judgements or reference scores.

    Intervals are 95 % bootstrap intervals over the queries. `quality/ndcg_at_10_change` is the
    relative change of the mean from the reference's, paired by query: -0.01 is a loss of 1 %.

    Raises:
        NonFiniteValues: a served score or a reference score is NaN or infinite.
    """
    if not lists:
        return {}
    for item in lists:
        _check_finite(item.scores, f"scores of query {item.query_id}")
        if item.reference is not None:
            _check_finite(item.reference, f"reference scores of query {item.query_id}")
    metrics = {
        "quality/queries": float(len(lists)),
        "quality/pairs": float(sum(len(item.scores) for item in lists)),
    }
    compared = [item for item in lists if item.reference is not None]
    if len(compared) == len(lists):
        metrics |= _drift(lists)
    judged = [item for item in lists if item.judged]
    if not judged:
        return metrics
    threshold = 2 if max(grade for item in judged for grade in item.grades) > 1 else 1
    columns = list(_effectiveness(judged, [item.scores for item in judged], threshold))
    with_reference = all(item.reference is not None for item in judged)
    if with_reference:
        references = [item.reference for item in judged if item.reference is not None]
        columns.append(_effectiveness(judged, references, threshold)[0])
    n, table = len(judged), np.stack(columns, axis=1)
    means = bootstrap_means(table, seed)
    metrics["quality/judged_queries"] = float(n)
    for column, name in enumerate(("ndcg_at_10", "mrr_at_10")):
        metrics[f"quality/{name}"] = float(table[:, column].mean())
        metrics |= _bounds(name, bootstrap_interval(means[:, column], n))
    if with_reference and table[:, 2].mean() > 0:
        change = float(table[:, 0].mean() / table[:, 2].mean()) - 1
        metrics["quality/ndcg_at_10_change"] = change
        possible = means[means[:, 2] > 0]
        changes = possible[:, 0] / possible[:, 2] - 1
        metrics |= _bounds("ndcg_at_10_change", bootstrap_interval(changes, n))
    return metrics


def judge(metrics: dict[str, float]) -> Judgement:
    """Decide whether the ranking is kept, that is nDCG@10 is at least 99 % of the reference's.

    The interval of the change, paired by query, decides: KEEPS if all of it is at or above -1 %,
    CHANGES if all of it is below. The verdict is UNSURE if the interval contains -1 %, or if fewer
    than ten queries are judged.
    """
    n = int(metrics.get("quality/judged_queries", 0))
    if not n:
        return Judgement(
            Verdict.UNSURE,
            "no query has a passage judged relevant, so only the drift of the scores is known "
            "(for a verdict, use a data set with relevance judgements: dataset=trec with qrels)",
        )
    if n < MIN_QUERIES:
        return Judgement(
            Verdict.UNSURE, f"too few judged queries: {n}, but at least {MIN_QUERIES} are needed"
        )
    names = [f"quality/ndcg_at_10_change{end}" for end in ("", "_low", "_high")]
    if any(name not in metrics for name in names):
        return Judgement(
            Verdict.UNSURE, "nDCG@10 of the reference is 0, so no comparison is possible"
        )
    share, low, high = (1 + metrics[name] for name in names)
    if not all(map(math.isfinite, (share, low, high))):
        return Judgement(Verdict.UNSURE, "the change of nDCG@10 is not a finite number")
    summary = (
        f"nDCG@10 is {percent(share, 1)} of the fp32 reference's, 95 % interval {percent(low, 1)} "
        f"to {percent(high, 1)}, over {counted(n, 'query')}"
    )
    if low >= KEPT:
        return Judgement(Verdict.KEEPS, summary)
    if high < KEPT:
        return Judgement(Verdict.CHANGES, summary)
    return Judgement(
        Verdict.UNSURE, f"{summary}: the interval contains 99 %, so more queries are needed"
    )


def ranking(passage_ids: Sequence[str], scores: Float32Array) -> list[int]:
    """Return list positions by rank: by descending score, and for equal scores by descending id.

    Raises:
        NonFiniteValues: a score is NaN or infinite.
    """
    _check_finite(np.asarray(scores), "scores to rank by")
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

    _check_finite(a, "scores")
    _check_finite(b, "the reference's scores")
    if len(b) < 2 or np.all(b == b[0]):
        return None
    value = float(kendalltau(a, b).statistic)
    return value if math.isfinite(value) else 0.0


def bootstrap_means(values: Float64Array, seed: int) -> Float64Array:
    """Return the means of `values` (n, columns) over resampled rows: (RESAMPLES, columns).

    Rows are queries, drawn with replacement. All columns use the same draws, so they are paired
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for rankings Sakai, Evaluating
    evaluation metrics based on the bootstrap, SIGIR 2006).

    Raises:
        NonFiniteValues: a value is NaN or infinite.
    """
    _check_finite(values, "values to resample")
    rng, n = np.random.default_rng(seed), len(values)
    parts = [
        rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES_AT_ONCE) @ values / n
        for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE)
    ]
    return np.concatenate(parts)


def bootstrap_interval(resampled: Float64Array, n: int) -> Interval | None:
    """Return the 95 % interval of resampled statistics of `n` observations, None for n < 2.

    This is the expanded percentile interval (Hesterberg, What teachers should know about the
    bootstrap, The American Statistician 69(4), 2015). It corrects for Student's t and for the
    biased variance of small samples, since the plain percentile interval is too narrow for a few
    dozen queries.

    Raises:
        NonFiniteValues: a resampled statistic is NaN or infinite.
    """
    _check_finite(resampled, "resampled statistics")
    if n < 2 or not len(resampled):
        return None
    tail = NormalDist().cdf(-math.sqrt(n / (n - 1)) * t_95(n - 1))
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(low), float(high))


def _drift(lists: Sequence[ScoredList]) -> dict[str, float]:
    both = [(item, item.reference) for item in lists if item.reference is not None]
    differences = np.concatenate(
        [np.abs(item.scores.astype(np.float64) - reference) for item, reference in both]
    )
    metrics = {
        "quality/max_abs_diff": float(differences.max()),
        "quality/mean_abs_diff": float(differences.mean()),
    }
    taus = [kendall_tau(item.scores, reference) for item, reference in both]
    known = [tau for tau in taus if tau is not None]
    if known:
        metrics["quality/kendall_tau"] = sum(known) / len(known)
    # In a list of ten or fewer passages, the first ten never change
    overlaps = [
        len({*_top(item, item.scores)} & {*_top(item, reference)}) / CUTOFF
        for item, reference in both
        if len(item.scores) > CUTOFF
    ]
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


def _check_finite(values: Float32Array | Float64Array, what: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        count = values.size - int(np.count_nonzero(finite))
        raise NonFiniteValues(
            f"{count:,} of {values.size:,} {what} are NaN or infinite, so the ranking is "
            "undefined: look for an overflow, for example in fp16, and use bf16 or fp32"
        )


def _bounds(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {f"quality/{name}_low": interval.low, f"quality/{name}_high": interval.high}
