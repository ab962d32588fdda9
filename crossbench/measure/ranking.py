"""What an engine or a precision does to a ranking: drift, agreement, nDCG@10 and MRR@10.

A list is ranked by score, the highest first; equal scores by passage id, the greater string first
(trec_eval's rule), so that the order of the input never decides. nDCG and RR are those of
ir-measures: linear gains over log2 of the rank, as trec_eval and the TREC Deep Learning track have
them, against the best ranking of *all* passages judged for the query. Where grades go beyond 1, RR
counts a passage as relevant from 2 on, as that track does; else from 1 (`is_selected`).
Means are over queries for which something relevant was judged.
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
KEPT = 0.99  # share of the reference's nDCG@10 that a ranking must keep
MIN_QUERIES = 10  # fewer say nothing about others
RESAMPLES = 10_000
_RESAMPLES_AT_ONCE = 500  # bounds the memory that many queries take

Float64Array = NDArray[np.float64]


class Verdict(StrEnum):
    """What the quality check found of a cell."""

    KEEPS = "keeps"  # nDCG@10 is at least 99 % of the reference's
    CHANGES = "changes"  # it is less
    UNSURE = "cannot say"  # too few queries, or their interval holds both
    REFERENCE = "reference"  # the cell is what others are compared with
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class ScoredList:
    """A query's passages with the scores of a server and, where it is known, the reference's.

    `scores` and `reference` are float32 (n,); `relevance` and `other_grades` as in
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
        """Every grade that is known for the query."""
        here = [grade for grade in self.relevance or () if grade is not None]
        return [*here, *self.other_grades]

    @property
    def judged(self) -> bool:
        """Something relevant was judged for the query."""
        return any(grade > 0 for grade in self.grades)

    @property
    def order_matters(self) -> bool:
        """One passage is more relevant than another: an order can be better or worse."""
        return len({max(grade or 0, 0) for grade in self.relevance or ()}) > 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the sentence that explains it."""

    verdict: Verdict
    reason: str


def quality_metrics(lists: Sequence[ScoredList], seed: int) -> dict[str, float]:
    """The contract's `quality/…`; what cannot be told (no judgements, no reference) is absent.

    Intervals are of the bootstrap over queries, 95 %. `quality/ndcg_at_10_change` is the relative
    change of the mean from the reference's, paired by query: -0.01 is a loss of 1 %.

    Raises:
        NonFiniteValues: a score of a server or of the reference is NaN or infinite.
    """
    if not lists:
        return {}
    for item in lists:
        _check_finite(item.scores, f"scores of query {item.query_id}")
        if item.reference is not None:
            _check_finite(item.reference, f"the reference's scores of query {item.query_id}")
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
    """Whether the ranking is kept: nDCG@10 at least 99 % of the reference's.

    Decided by the interval of the change, paired by query: it keeps the ranking where all of the
    interval is at or above -1 %, changes it where all is below, and nothing can be said where the
    interval holds both or fewer than ten queries have judgements.
    """
    n = int(metrics.get("quality/judged_queries", 0))
    if not n:
        return Judgement(Verdict.UNSURE, "no query has a relevant passage, so only drift is known")
    if n < MIN_QUERIES:
        return Judgement(
            Verdict.UNSURE, f"{n} judged queries are too few, {MIN_QUERIES} are needed"
        )
    names = [f"quality/ndcg_at_10_change{end}" for end in ("", "_low", "_high")]
    if any(name not in metrics for name in names):
        return Judgement(Verdict.UNSURE, "the reference finds nothing relevant either")
    share, low, high = (1 + metrics[name] for name in names)
    if not all(map(math.isfinite, (share, low, high))):
        return Judgement(Verdict.UNSURE, "the change of nDCG@10 is not a finite number")
    told = (
        f"nDCG@10 is {percent(share, 1)} of fp32's, 95 % interval {percent(low, 1)} to "
        f"{percent(high, 1)}, over {counted(n, 'query')}"
    )
    if low >= KEPT:
        return Judgement(Verdict.KEEPS, told)
    if high < KEPT:
        return Judgement(Verdict.CHANGES, told)
    return Judgement(Verdict.UNSURE, f"{told}: the interval contains 99 %, more queries would tell")


def ranking(passage_ids: Sequence[str], scores: Float32Array) -> list[int]:
    """Places in the list by rank: the highest score first, of equal ones the greater id.

    Raises:
        NonFiniteValues: a score is NaN, which has no rank, or infinite.
    """
    _check_finite(np.asarray(scores), "scores to rank by")
    by_id = sorted(range(len(passage_ids)), key=passage_ids.__getitem__, reverse=True)
    order = np.argsort(-np.asarray(scores)[by_id], kind="stable")
    return [by_id[index] for index in order]


def kendall_tau(a: Float32Array, b: Float32Array) -> float | None:
    """Kendall's tau-b of two scorings (n,); None where `b` does not order anything.

    An `a` that is constant has lost the order: 0.

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
    """Means of `values` (n, columns) over resamples of its rows: (RESAMPLES, columns).

    Rows are queries, drawn with replacement, the same ones for all columns, which pairs them
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
    """95 % interval from resampled statistics of `n` observations; None below two.

    The expanded percentile interval: percentiles moved out as Student's t and the biased variance
    of few observations call for (Hesterberg, What teachers should know about the bootstrap, The
    American Statistician 69(4), 2015), since the plain one is too narrow for a few dozen queries.

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
    # In a list of ten or fewer the first ten are always the same
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
    """nDCG@10 and RR@10 of every list under `scores`, each float64 (len(lists),)."""
    from ir_measures import RR, Qrel, ScoredDoc, evaluator, nDCG

    gain, reciprocal = nDCG @ CUTOFF, RR(rel=threshold) @ CUTOFF
    qrels, run = [], []
    for number, (item, values) in enumerate(zip(lists, scores, strict=True)):
        query = str(number)
        # Documents are called by their place and scored by their rank: ties are decided above
        for place, grade in enumerate(item.relevance or ()):
            if grade is not None:
                qrels.append(Qrel(query, str(place), max(grade, 0)))
        for index, grade in enumerate(item.other_grades):
            qrels.append(Qrel(query, f"elsewhere {index}", max(grade, 0)))
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
            f"{count:,} of {values.size:,} {what} are NaN or infinite, so nothing can be said of "
            "the ranking: look for an overflow, for example in fp16, and use bf16 or fp32"
        )


def _bounds(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {f"quality/{name}_low": interval.low, f"quality/{name}_high": interval.high}
