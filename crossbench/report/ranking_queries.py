"""Compute the ranking quality of a sweep's cells on the queries that all of them scored.

A check ends by time, so slow cells score fewer queries. All cells score the queries in the same
order, which is random (see `quality.sample`), so the first n of them are a random sample and the
same in every cell. Metrics and verdicts are computed again from the stored values of each query.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.measure.catalogue import (
    JUDGED_QUERIES,
    QUALITY_FAMILY,
    QUALITY_PAIRS,
    QUERIES,
)
from crossbench.measure.ranking import MIN_QUERIES, Verdict, judge
from crossbench.measure.ranking_metrics import quality_metrics, without_change_interval
from crossbench.report.cells import Run
from crossbench.results import RunResult, load_queries
from crossbench.types import QueryQuality

COMMON_KEY = "queries_common"  # in a result's `quality`, if its metrics are of fewer queries
_COUNTS = (QUERIES.name, JUDGED_QUERIES.name, QUALITY_PAIRS.name)


@dataclass(frozen=True, slots=True)
class _Checked:
    run: int
    queries: tuple[QueryQuality, ...]
    enough: bool  # whether it scored enough queries for a verdict


def on_common_queries(runs: Sequence[Run], folders: Sequence[Path | None]) -> list[Run]:
    """Return the runs with metrics and verdicts of the queries that all checked runs have scored.

    `folders` are those of the runs, with the stored values of each query; None if it is not here.
    A run that scored too few queries for a verdict does not cut the others: it loses the metrics
    that would not be comparable. Runs without stored qualities stay as they are, and so do all if
    their queries are not the same.
    """
    groups: dict[tuple[str, int], list[_Checked]] = defaultdict(list)
    for index, (run, folder) in enumerate(zip(runs, folders, strict=True)):
        queries = _stored_queries(folder, run.result) if folder is not None else ()
        if queries:
            chosen = int(run.result.quality.get("queries_chosen", 0))
            enough = len(queries) >= min(MIN_QUERIES, chosen)
            first = queries[0]
            groups[first.query_id, first.pairs].append(_Checked(index, queries, enough))
    found = list(runs)
    for group in groups.values():
        for index, result in _on_common(group, runs).items():
            found[index] = replace(runs[index], result=result)
    return found


def _stored_queries(folder: Path, result: RunResult) -> tuple[QueryQuality, ...]:
    if result.quality.get("verdict", Verdict.UNCHECKED) == Verdict.UNCHECKED:
        return ()
    try:
        return tuple(load_queries(folder))
    except ResultError:
        return ()


def _on_common(group: Sequence[_Checked], runs: Sequence[Run]) -> Mapping[int, RunResult]:
    """Return the changed results by the number of their run."""
    ids = max(([query.query_id for query in item.queries] for item in group), key=len)
    if any([query.query_id for query in item.queries] != ids[: len(item.queries)]
           for item in group):  # fmt: skip
        return {}
    common = min((len(item.queries) for item in group if item.enough), default=0)
    changed = {}
    for item in group:
        result = runs[item.run].result
        if item.enough and len(item.queries) > common:
            changed[item.run] = _with_queries(result, item.queries[:common])
        elif not item.enough and common:
            metrics = {
                name: value
                for name, value in result.metrics.items()
                if not name.startswith(f"{QUALITY_FAMILY}/") or name in _COUNTS
            }
            changed[item.run] = replace(result, metrics=metrics)
    return changed


def _with_queries(result: RunResult, queries: Sequence[QueryQuality]) -> RunResult:
    """Return the result as if only these queries had been checked."""
    kept = {
        name: value
        for name, value in result.metrics.items()
        if not name.startswith(f"{QUALITY_FAMILY}/")
    }
    metrics = quality_metrics(queries, int(result.config.value("seed") or 0))
    summary = {**result.quality, COMMON_KEY: len(queries)}
    if summary["verdict"] != Verdict.REFERENCE:
        found = judge(queries, metrics)
        if found.same_scores:
            metrics = without_change_interval(metrics)
        summary |= {
            "verdict": found.verdict.value,
            "reason": f"{found.reason}{summary.get('left_out', '')}",
            "same_scores": found.same_scores,
        }
    return replace(result, metrics={**kept, **metrics}, quality=summary)
