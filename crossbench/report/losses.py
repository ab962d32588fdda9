"""How a cell of sweep B is worse than in sweep A, apart from the values that verdicts compare.

A server that fails, is overloaded or refuses requests has no throughput or p95 that could be
compared. A comparison of these alone would find nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossbench.measure.catalogue import REQUESTS_FAILED, throughput
from crossbench.measure.ranking import Verdict
from crossbench.report.columns import requests_ok
from crossbench.report.pairing import Pair
from crossbench.results import Flag, RunResult, Status
from crossbench.wording import percent


def losses(pair: Pair, threshold: float) -> Iterator[str]:
    """Yield each way in which B is worse, as the rest of a sentence about the cell.

    `threshold` is the share of requests that may fail more than in A.
    """
    ended = [[run for run in side if run.status is Status.FINISHED] for side in (pair.a, pair.b)]
    if not ended[0]:
        return
    failed = [run for run in pair.b if run.status is not Status.FINISHED]
    if failed and len(failed) / len(pair.b) > 1 - len(ended[0]) / len(pair.a):
        runs = "it" if len(failed) == len(pair.b) else f"{len(failed)} of its {len(pair.b)} runs"
        reason = (failed[0].error or "no reason was recorded").strip().splitlines()[0]
        yield f"{runs} did not finish in B ({failed[0].status}: {reason})"
    if not ended[1]:
        return
    saturated = [any(Flag.OVER_SATURATED in run.flags for run in side) for side in ended]
    if saturated == [False, True]:
        yield "it is over-saturated in B: requests were due faster than the server answered them"
    if not _answers(ended[1]) and _answers(ended[0]):
        yield "no request was answered in B"
    shares = [_failed_share(side) for side in ended]
    if shares[1] > shares[0] + threshold:
        yield f"{percent(shares[1], 1)} of its requests failed in B, {percent(shares[0], 1)} in A"
    before, now = (ranking_verdict(side) for side in (pair.a, pair.b))
    if now == Verdict.CHANGES != before:
        yield f"its ranking changes in B (in A: {before or 'not checked'})"


def ranking_verdict(runs: Sequence[RunResult]) -> str:
    """The verdict of a cell's quality checks, the worst one if its runs differ; empty: no check."""
    found = {str(run.quality["verdict"]) for run in runs if run.quality.get("verdict")}
    found.discard(Verdict.UNCHECKED)
    worst_first = (Verdict.CHANGES, Verdict.UNSURE)
    return next((v.value for v in worst_first if v in found), next(iter(sorted(found)), ""))


def _answers(runs: Sequence[RunResult]) -> bool:
    return all(run.metrics.get(throughput(run.task.unit).name) for run in runs)


def _failed_share(runs: Sequence[RunResult]) -> float:
    failed = sum(run.metrics.get(REQUESTS_FAILED.name, 0.0) for run in runs)
    return failed / max(1.0, failed + sum(requests_ok(run.metrics) for run in runs))
