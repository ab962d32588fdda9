"""The verdict on a cell's ranking, from its queries' quality and the reference's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.betting import is_positive, values_needed
from crossbench.measure.catalogue import NDCG_AT_10_CHANGE
from crossbench.types import Quant, QueryQuality
from crossbench.wording import counted, number, percent

KEPT = 0.99  # share of the reference's nDCG@10 that a ranking must reach
MIN_QUERIES = 10  # fewer queries allow no conclusion
ROUNDING = 1e-4  # scores that differ by less are the same if the order is the same
_MOST_QUERIES = 1_000_000  # a larger estimate of the queries needed says nothing

Float64Array = NDArray[np.float64]


class Verdict(StrEnum):
    """The verdict of the quality check on a cell."""

    KEEPS = "keeps"  # nDCG@10 is shown to be at least 99 % of the reference's
    CHANGES = "changes"  # nDCG@10 is shown to be less than 99 % of the reference's
    SAME_ORDER = "same order"  # on all checked queries, which are too few to show more
    UNSURE = "cannot say"  # neither was shown
    REFERENCE = "reference"  # the cell itself computes the reference scores
    UNCHECKED = "not checked"

    @property
    def is_safe(self) -> bool:
        """Whether a cell with it may be the best: the ranking is kept, or no change was seen."""
        return self in (Verdict.KEEPS, Verdict.SAME_ORDER, Verdict.REFERENCE)


def ranks_safely(verdict: Verdict | None, quant: object) -> bool:
    """Whether a cell may be the best as far as its ranking goes, whatever other cells do.

    That of fp32 needs no check, unless one showed a change. A lower precision that was not verified
    may be the best only where no cell ranks safely. `quant` is FP32 where it is not known.
    """
    if verdict is Verdict.CHANGES:
        return False
    return quant == Quant.FP32 or (verdict is not None and verdict.is_safe)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reason. `same_scores`: they differ from the reference's by rounding."""

    verdict: Verdict
    reason: str
    same_scores: bool = False


def judge(queries: Sequence[QueryQuality], metrics: dict[str, float]) -> Judgement:
    """Decide whether the ranking is kept, that is nDCG@10 is at least 99 % of the reference's.

    `metrics` are those of the same queries. Each of the two decisions is a one-sided test at 2.5 %:

    - KEEPS: a non-inferiority test by betting, valid also for few queries and rare losses.
    - CHANGES: the high end of the change's bootstrap interval is below -1 %. It assumes that the
      sample shows how nDCG varies; rare large gains that it does not contain are not considered.

    If neither is shown, the verdict is SAME_ORDER if no order has changed, otherwise UNSURE. At
    least ten queries are needed for a verdict.
    """
    lists = [query for query in queries if query.pairs > 1 and query.same_order is not None]
    changed = sum(not query.same_order for query in lists)
    judged = [query for query in queries if query.relevant]
    if len(lists) < MIN_QUERIES:
        return Judgement(
            Verdict.UNSURE,
            f"too few queries: {len(lists)} with two or more passages were compared, but at least "
            f"{MIN_QUERIES} are needed",
        )
    drifts = [query.max_abs_diff for query in lists if query.max_abs_diff is not None]
    drift = max(drifts, default=None)  # None: the scores have another scale
    same_scores = not changed and drift is not None and drift < ROUNDING
    informative = sum(query.relevant and query.order_matters for query in queries)
    needed = None
    if judged and informative >= MIN_QUERIES:
        if shown := _shown(judged, metrics):
            return Judgement(shown, _summary(judged, metrics), same_scores)
        needed = _queries_needed(judged, metrics)
    if not changed:
        reason = f"same order on all {counted(len(lists), 'checked query')}"
        if same_scores:
            reason += "; the scores are the same: they differ by at most "
            reason += f"{number(drift, 2)}, which is rounding"
        elif drift is not None:
            reason += f"; scores differ by up to {number(drift, 2)}"
        if needed and not same_scores:
            reason += f"; {_needed_text(needed)} would exclude a rare loss of more than 1 %"
        return Judgement(Verdict.SAME_ORDER, reason, same_scores)
    order = f"the order changed in {changed} of {counted(len(lists), 'query')}"
    if not judged:
        return Judgement(
            Verdict.UNSURE,
            f"{order}, and no query has a passage judged relevant, so the effect on nDCG is "
            "unknown (use a data set with relevance judgements: dataset=trec with qrels)",
        )
    if informative < MIN_QUERIES:
        return Judgement(
            Verdict.UNSURE,
            f"{order}, and only {informative} of the judged queries have passages of different "
            f"grades, but at least {MIN_QUERIES} are needed: in the others, nDCG@10 is the same "
            "for every order",
        )
    if NDCG_AT_10_CHANGE.name not in metrics:
        return Judgement(
            Verdict.UNSURE, "nDCG@10 of the reference is 0, so no comparison is possible"
        )
    more = f"{_needed_text(needed)} would probably decide it" if needed else "more are needed"
    return Judgement(
        Verdict.UNSURE, f"{_summary(judged, metrics)}: the interval contains 99 %; {order}; {more}"
    )


def shows_kept(ndcg: Float64Array, reference_ndcg: Float64Array) -> bool:
    """Return whether nDCG@10 (n,) is shown to be at least 99 % of the reference's in the mean."""
    return is_positive(ndcg - KEPT * reference_ndcg, -KEPT)


def shows_loss(highest_change: float) -> bool:
    """Return whether nDCG@10 is shown to be less than 99 %, from the change's high end."""
    return 1 + highest_change < KEPT


def _shown(judged: Sequence[QueryQuality], metrics: dict[str, float]) -> Verdict | None:
    """Return the verdict that a test shows, or None."""
    if NDCG_AT_10_CHANGE.name not in metrics:
        return None
    if shows_kept(*_ndcgs(judged)):
        return Verdict.KEEPS
    _, high = NDCG_AT_10_CHANGE.interval(metrics) or (0.0, math.inf)
    return Verdict.CHANGES if shows_loss(high) else None


def _queries_needed(judged: Sequence[QueryQuality], metrics: dict[str, float]) -> int | None:
    """Return about how many queries like these would show that the ranking is kept or changed."""
    ends = NDCG_AT_10_CHANGE.interval(metrics)
    if ends is None:
        return None
    share, high = 1 + metrics[NDCG_AT_10_CHANGE.name], 1 + ends[1]
    if share < KEPT:  # the interval's width shrinks with the root of the number of queries
        needed = math.ceil(len(judged) * ((high - share) / (KEPT - share)) ** 2)
    else:
        served, reference = _ndcgs(judged)
        needed = values_needed(served - KEPT * reference, -KEPT) or _MOST_QUERIES
    return needed if needed < _MOST_QUERIES else None


def _ndcgs(judged: Sequence[QueryQuality]) -> tuple[Float64Array, Float64Array]:
    """Return nDCG@10 of the cell and of the reference, each (n,)."""
    table = np.array([[query.ndcg or 0.0, query.reference_ndcg or 0.0] for query in judged])
    return table[:, 0], table[:, 1]


def _summary(judged: Sequence[QueryQuality], metrics: dict[str, float]) -> str:
    share = percent(1 + metrics[NDCG_AT_10_CHANGE.name], 1)
    text = f"nDCG@10 is {share} of the fp32 reference's"
    if ends := NDCG_AT_10_CHANGE.interval(metrics):
        low, high = (percent(1 + end, 1) for end in ends)
        text += f", 95 % interval {low} to {high}"
    return f"{text}, over {counted(len(judged), 'query')}"


def _needed_text(needed: int) -> str:
    digits = max(0, len(str(needed)) - 2)
    return f"about {round(needed, -digits):,} queries"
