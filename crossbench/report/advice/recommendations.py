"""What a sweep's own numbers recommend, each with its evidence and its limits."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.report.advice.advice import Recommendation
from crossbench.report.advice.choice import choose
from crossbench.report.advice.choices import distinguishable_choices, lower_precision
from crossbench.report.advice.limits import bottlenecks
from crossbench.report.advice.settings import best_settings, knee, useful_concurrency
from crossbench.report.axes import varying
from crossbench.report.compare import Run, cells
from crossbench.results import RunResult


def recommend(runs: Sequence[Run], bound_ms: float | None) -> list[Recommendation]:
    """From the runs of a sweep; `bound_ms` is the p95 that a recommended cell must keep.

    A cell that changes the ranking is never recommended. Empty where there is no cell.
    """
    joined, axes = cells(runs), varying([run.result.config for run in runs])
    if not joined:
        return []
    choice = choose(joined)
    return [
        best_settings(choice, bound_ms),
        knee(choice),
        *distinguishable_choices(joined, axes),
        lower_precision(joined, axes),
        useful_concurrency(choice, axes),
        bottlenecks(joined, axes),
    ]


def recommendations(runs: Sequence[Run]) -> str:
    """The section of a report, with the bound that the cells' configuration gives."""
    found = recommend(runs, latency_bound_ms([run.result for run in runs]))
    if not found:
        return ""
    supported = [_paragraph(item) for item in found if item.advice is not None]
    rest = [f"- {item.topic}: {' '.join(item.evidence)}" for item in found if item.advice is None]
    parts = ["## Recommendations", *supported]
    if rest:
        parts.append("What these data cannot say:\n\n" + "\n".join(rest))
    return "\n\n".join(parts)


def latency_bound_ms(results: Sequence[RunResult]) -> float | None:
    """The tightest bound that the cells' configurations give (`report.latency_bound_ms`)."""
    bounds = [result.config.value("report.latency_bound_ms") for result in results]
    return min((float(bound) for bound in bounds if bound is not None), default=None)


def _paragraph(item: Recommendation) -> str:
    lines = [f"**{item.topic}:** {item.advice}", ""]
    lines += [f"- {text}" for text in item.evidence]
    if item.limits:
        lines.append(f"- *Limits:* {' '.join(item.limits)}")
    return "\n".join(lines)
