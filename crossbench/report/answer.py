"""The first lines of a sweep's report: which cells are the best, or which rates hold."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.load.labels import RATE_KEY, load_description
from crossbench.measure.catalogue import P95_LATENCY
from crossbench.report.advice.candidates import Candidates
from crossbench.report.best import (
    Best,
    GetEstimate,
    best_cells,
    contenders,
    ranked_p95_of,
    same_mark,
    throughput_of,
)
from crossbench.report.cells import CellSummary, ratio
from crossbench.report.columns import text_with_unit
from crossbench.report.flags import flagged
from crossbench.report.ranking import quality_reason
from crossbench.report.rate_answer import rate_answers
from crossbench.report.steps import best_level
from crossbench.report.sweep_tables import estimate_text
from crossbench.wording import counted, number

_LISTED = 5


def answer(cells: Sequence[CellSummary], axes: Sequence[str], bound_ms: float | None) -> str:
    """The first lines of a sweep's report; `bound_ms` bounds the p95 of a rate."""
    measured = [cell for cell in cells if cell.throughput is not None]
    if not cells:
        return "**No cell was run.**"
    if not measured:
        return "**No cell finished.** The reasons are listed below."
    rates = rate_answers(cells, axes, bound_ms)
    lines = [*rates, *filter(None, map(best_level, measured))]
    best = best_cells(cells)
    if len(measured) == 1 and not lines:
        only = _description(measured[0])
        lines = [f"Only one cell was measured, {only}, so there is nothing to compare."]
    elif len(measured) > 1 and all(cell.disqualified for cell in measured):
        change = f"**All {len(measured)} measured cells change the ranking**"
        return _listed([f"{change}: see Ranking quality below.", *lines])
    elif len(measured) > 1:
        lines += _best_lines(best, measured[0])
        lines += _trace_lines(best.candidates) + _excluded_lines(best.candidates, measured)
    lines = lines or [f"{_description(cell)}." for cell in measured]
    if len(measured) < len(cells):
        lines.append(f"{len(measured)} of {len(cells)} cells were measured.")
    return _listed(lines)


def _listed(lines: Sequence[str]) -> str:
    kept = [line for line in lines if line]
    return kept[0] if len(kept) == 1 else "\n".join(f"- {line}" for line in kept)


def _best_lines(found: Best, first: CellSummary) -> list[str]:
    candidates, fastest, lowest_p95 = found.candidates, found.fastest, found.lowest_p95
    lines = []
    if fastest is not None:
        ties = _ties(fastest, candidates.cells, throughput_of)
        speedup = _speedup(fastest, found.baseline or first)
        lines.append(f"Highest throughput: {_description(fastest)}{speedup}.{ties}")
    if lowest_p95 is not None:
        ties = _ties(lowest_p95, candidates.cells, ranked_p95_of)
        lines.append(f"Lowest {P95_LATENCY.title}: {_description(lowest_p95)}.{ties}")
    elif fastest is not None:
        lines.append(f"Lowest {P95_LATENCY.title}: n/a.")
    for best, same in found.by_load[:_LISTED]:
        ties = _ties(best, same, ranked_p95_of)
        load = load_description(best.runs[0].result.config)
        lines.append(f"Lowest {P95_LATENCY.title} with {load}: {_description(best)}.{ties}")
    if fastest is None and not contenders(candidates):
        lines += [f"{_description(cell)}." for cell in candidates.cells if not cell.is_paced]
    unsupported = [cell for cell in candidates.cells if not cell.p95_supported]
    if unsupported and lines:
        subject = "its p95 is" if len(unsupported) == 1 else "their p95 are"
        lines.append(
            f"{counted(len(unsupported), 'cell')} had fewer than 100 requests, so {subject} not "
            "compared."
        )
    return lines


def _trace_lines(candidates: Candidates) -> list[str]:
    """The open loops without a rate, which the lines about rates do not name."""
    return [
        f"{_description(cell)}."
        for cell in candidates.cells
        if cell.is_paced and RATE_KEY not in cell.flat
    ]


def _excluded_lines(candidates: Candidates, measured: Sequence[CellSummary]) -> list[str]:
    """The cells that were not compared, except those about which the rates already say it."""
    excluded = [
        f"**{cell.label}**, {estimate_text(cell.throughput)} {cell.unit}/s "
        f"({candidates.excluded[cell.label]})"
        for cell in measured
        if cell.label in candidates.excluded
        and not cell.disqualified
        and not (RATE_KEY in cell.flat and (cell.over_saturated or not candidates.cells))
        and not cell.is_ramp
    ]
    lines = [f"Excluded from the comparison: {'; '.join(excluded)}."] if excluded else []
    return lines + [
        f"**{cell.label}** changes the ranking, so it is excluded: {quality_reason(cell)}."
        for cell in measured
        if cell.disqualified
    ]


def _description(cell: CellSummary) -> str:
    p95 = ""
    if cell.p95 is not None and not cell.over_saturated:
        p95 = f" at a {P95_LATENCY.short} of {text_with_unit(P95_LATENCY, cell.metrics)}"
    return f"**{cell.label}**{flagged(cell)}, {estimate_text(cell.throughput)} {cell.unit}/s{p95}"


def _speedup(cell: CellSummary, first: CellSummary) -> str:
    if cell is first:
        return " (the first cell)"
    if cell.throughput is None or first.throughput is None or first.is_paced:
        return ""
    times = number(ratio(cell.throughput, first.throughput).value)
    return f", {times} times the throughput of the first cell ({first.label})"


def _ties(best: CellSummary, others: Sequence[CellSummary], get: GetEstimate) -> str:
    tied = [
        cell.label
        for cell in others
        if cell is not best and cell.is_paced == best.is_paced and same_mark(get(cell), get(best))
    ]
    if tied:
        return f" Not distinguishable from it: {'; '.join(tied)}."
    found = get(best)
    unknown = found is None or found.half_width is None
    return " Its spread is unknown, so its lead may be chance." if unknown else ""
