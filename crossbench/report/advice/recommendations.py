"""The recommendations that a sweep's measurements support, with evidence and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossbench.report.advice.advice import Recommendation
from crossbench.report.advice.bottlenecks import bottlenecks
from crossbench.report.advice.candidates import by_throughput, select_candidates
from crossbench.report.advice.comparisons import axis_comparisons, lower_precision
from crossbench.report.advice.settings import best_settings, highest_rate, knee, useful_concurrency
from crossbench.report.axes import varying
from crossbench.report.cells import Run
from crossbench.report.machines import never_together
from crossbench.report.rate_answer import latency_bound_ms
from crossbench.report.summaries import summarise_cells
from crossbench.report.verdicts import sweep_verdicts

_NEVER_TOGETHER = (
    "some cells were measured on unlike machines only, so they cannot be compared. Measure all on "
    "one machine (`cluster.hosts=[NAME]`), or give `repeats=3`, which keeps each block on one."
)


def recommend(runs: Sequence[Run], bound_ms: float | None) -> list[Recommendation]:
    """Derive recommendations from the runs of a sweep; `bound_ms` bounds a recommended cell's p95.

    A cell that changes the ranking is never recommended. Empty without cells.
    """
    cells, axes = summarise_cells(runs), varying([run.result.config for run in runs])
    if not cells:
        return []
    if never_together(cells):
        return [Recommendation("All questions", None, (_NEVER_TOGETHER,))]
    candidates = select_candidates(cells)
    verdicts = sweep_verdicts(cells)
    of_server = by_throughput(cells)  # whose throughput is the server's, not that of the load
    found = []
    if len(of_server) < len(cells):
        found.append(highest_rate(cells, axes, bound_ms, verdicts))
    if of_server:
        candidates = replace(candidates, cells=tuple(by_throughput(candidates.cells)))
        found.append(best_settings(candidates, bound_ms, verdicts))
    return [
        *found,
        knee(candidates, verdicts),
        *axis_comparisons(cells, axes, verdicts),
        lower_precision(cells, axes, verdicts),
        useful_concurrency(cells, candidates, axes, verdicts),
        bottlenecks(cells, axes, verdicts),
    ]


def recommendations(runs: Sequence[Run]) -> str:
    """The recommendations section of a report, under the latency bound of the cells' configs."""
    found = recommend(runs, latency_bound_ms([run.result for run in runs]))
    if not found:
        return ""
    supported = [_paragraph(item) for item in found if item.advice is not None]
    rest = [f"- {item.topic}: {' '.join(item.evidence)}" for item in found if item.advice is None]
    parts = ["## Recommendations", *supported]
    if rest:
        parts.append("Not answered by these measurements:\n\n" + "\n".join(rest))
    return "\n\n".join(parts)


def _paragraph(item: Recommendation) -> str:
    lines = [f"**{item.topic}:** {item.advice}", ""]
    lines += [f"- {text}" for text in item.evidence]
    if item.limits:
        lines.append(f"- *Limits:* {' '.join(item.limits)}")
    return "\n".join(lines)
