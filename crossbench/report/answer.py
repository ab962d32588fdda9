"""The first lines of a sweep's report: which cells are the best, or which rates hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from crossbench.load.labels import RATE_KEY, load_description
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.advice.advice import few_runs
from crossbench.report.advice.candidates import Candidates, by_throughput
from crossbench.report.advice.settings import best_settings
from crossbench.report.best import Best, best_cells, contenders
from crossbench.report.cells import CellSummary
from crossbench.report.columns import text_with_unit
from crossbench.report.flags import flagged
from crossbench.report.judged import title as title_of
from crossbench.report.metric_verdicts import MetricVerdicts, times
from crossbench.report.ranking import quality_reason
from crossbench.report.rate_answer import rate_answers
from crossbench.report.steps import best_level
from crossbench.report.sweep_tables import estimate_text
from crossbench.report.verdicts import SweepVerdicts
from crossbench.wording import counted, join_first

_LISTED = 5


def answer(
    cells: Sequence[CellSummary],
    axes: Sequence[str],
    bound_ms: float | None,
    verdicts: SweepVerdicts,
) -> str:
    """The first lines of a sweep's report; `bound_ms` bounds the p95 of a rate."""
    measured = [cell for cell in cells if cell.throughput is not None]
    if not cells:
        return "**No cell was run.**"
    if not measured:
        return "**No cell finished.**"
    rates = rate_answers(cells, axes, bound_ms)
    lines = [*rates, *filter(None, map(best_level, measured))]
    best = best_cells(cells, verdicts)
    of_server = tuple(by_throughput(best.candidates.cells))
    if bound_ms is not None and len(of_server) > 1:
        within = best_settings(replace(best.candidates, cells=of_server), bound_ms, verdicts)
        lines.append(f"**{within.topic}:** {within.advice or within.evidence[0]}")
    if len(measured) == 1 and not lines:
        only = _description(measured[0])
        lines = [f"Only one cell was measured, {only}, so there is nothing to compare."]
    elif len(measured) > 1 and all(cell.disqualified for cell in measured):
        change = f"**All {len(measured)} measured cells change the ranking**"
        return _listed([f"{change}: see Ranking quality below.", *lines])
    elif len(measured) > 1:
        lines += _best_lines(best, verdicts)
        lines += _trace_lines(best.candidates) + _excluded_lines(best.candidates, measured)
    lines = lines or [f"{_description(cell)}." for cell in measured]
    if len(measured) < len(cells):
        lines.append(f"{len(measured)} of {len(cells)} cells were measured.")
    return _listed(lines)


def _listed(lines: Sequence[str]) -> str:
    kept = [line for line in lines if line]
    return kept[0] if len(kept) == 1 else "\n".join(f"- {line}" for line in kept)


def _best_lines(found: Best, verdicts: SweepVerdicts) -> list[str]:
    candidates = found.candidates
    lines = []
    if found.fastest:
        compared = [cell for cell in candidates.cells if not cell.is_paced]
        lines.append(_best_line(found.fastest, compared, verdicts.throughput, "fastest"))
        lines.append(certainty(verdicts))
    lowest = f"the lowest {P95_LATENCY.title}"
    if found.lowest_p95:
        compared = [cell for cell in candidates.cells if not cell.is_paced]
        lines.append(_best_line(found.lowest_p95, compared, verdicts.p95, lowest))
    elif found.fastest and any(cell.p95_supported for cell in candidates.cells):
        lines.append(f"{lowest.capitalize()}: n/a.")
    for best, same in found.by_load[:_LISTED]:
        load = load_description(best[0].runs[0].result.config)
        lines.append(_best_line(best, same, verdicts.p95, f"{lowest} with {load}"))
    if verdicts.named or not lines:
        lines += _against_baseline(verdicts)
    if lines and not found.fastest and len(verdicts.throughput.cells) > 1:
        lines.append(certainty(verdicts))
    if candidates.unverified and (found.fastest or found.lowest_p95):
        lines.append("It was not verified that any of these cells keeps the ranking.")
    if not found.fastest and not contenders(candidates):
        lines += [f"{_description(cell)}." for cell in candidates.cells if not cell.is_paced]
    return [*lines, *_unsupported_p95(candidates.cells)] if lines else []


def _unsupported_p95(cells: Sequence[CellSummary]) -> list[str]:
    """Which of the compared cells have too few requests for a p95 that can be compared."""
    unsupported = [cell for cell in cells if not cell.p95_supported]
    if not unsupported:
        return []
    if len(unsupported) == len(cells):
        return ["No p95 is compared: it takes 100 requests, which no compared cell had."]
    number_of = counted(len(unsupported), "compared cell")
    return [f"{number_of} had fewer than 100 requests, too few for a p95 that can be compared."]


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
    lines = []
    if not any(cell.computes_scores for cell in measured):
        lines = ["No cell ran a model, so these figures are of crossbench itself."]
    elif excluded:
        lines = [f"Left out of the choice of the best cell: {join_first(excluded)}."]
    changed = [cell for cell in measured if cell.disqualified]
    lines += [
        f"**{cell.label}** changes the ranking, so it is excluded: {quality_reason(cell)}."
        for cell in changed[:_LISTED]
    ]
    if len(changed) > _LISTED:
        lines.append(f"In all, {len(changed)} cells change the ranking.")
    return lines


def _description(cell: CellSummary, *, bold: bool = True) -> str:
    p95 = ""
    if cell.p95 is not None and not cell.over_saturated:
        p95 = f" at a {P95_LATENCY.short} of {text_with_unit(P95_LATENCY, cell.metrics)}"
    value = f"{estimate_text(cell.throughput)} {cell.unit}/s{p95}"
    return f"**{cell.label}**{flagged(cell)}, {value}" if bold else f"{value}{flagged(cell)}"


def _best_line(
    best: Sequence[CellSummary],
    compared: Sequence[CellSummary],
    verdicts: MetricVerdicts,
    title: str,
) -> str:
    """Name the best cell, or all that may be the best, and what is needed to decide the rest.

    `title` is an adjective (`fastest`) or names the value (`the lowest p95 latency`).
    """
    inside = [cell for cell in compared if cell in verdicts.cells]
    others = [cell for cell in inside if cell not in best]
    adjective = not title.startswith("the ")
    if len(inside) == 1:
        return (
            f"{_description(inside[0])}: the only cell whose {title_of(verdicts.metric)} is known."
        )
    if len(best) == 1:
        ratios = [found.ratio for cell in others if (found := verdicts.between(best[0], cell))]
        low, high = times(min(ratios)), times(max(ratios))
        span = f"{low}×" if low == high else f"{low} to {high}×"
        whom = {1: others[0].label, 2: "both other cells"}.get(
            len(others), f"all {len(others)} other cells"
        )
        text = f"**{best[0].label} has {title}**, {span} that of {whom}"
        if adjective:
            text = f"**{best[0].label} is faster than {whom}** ({span})"
        return f"{text}: {_description(best[0], bold=False)}.{_rest(others, verdicts)}"
    names = join_first([_value(cell, verdicts) for cell in best])
    same = not verdicts.undecided(best)
    one = "are the fastest" if adjective else f"have {title}"
    may = "may be the fastest" if adjective else f"may have {title}"
    if same:
        return f"**{len(best)} cells {one}**, the same within the margin: {names}."
    return f"**{len(best)} cells {may}**: {names}.{_needed(best, verdicts)}"


def _value(cell: CellSummary, verdicts: MetricVerdicts) -> str:
    """A cell with its value, for a list of cells that may be the best."""
    value = text_with_unit(P95_LATENCY, cell.metrics)
    if verdicts.metric is PAIRS_PER_S:
        value = f"{estimate_text(cell.throughput)} {cell.unit}/s"
    return f"**{cell.label}**{flagged(cell)}, {value}"


def _against_baseline(verdicts: SweepVerdicts) -> list[str]:
    """How the throughput of each cell compares with that of the baseline."""
    baseline, throughput = verdicts.baseline, verdicts.throughput
    found = throughput.against(baseline) if baseline is not None else {}
    if baseline is None or not found:
        return []
    labels = {cell.name: cell.label for cell in throughput.cells}
    by_verdict: dict[str, list[str]] = {}
    for name, contrast in found.items():
        together = contrast.low is not None
        text = f"{labels[name]} ({times(contrast.ratio)}×)" if together else labels[name]
        by_verdict.setdefault(throughput.text(contrast), []).append(text)
    note = f"{verdicts.note} " if verdicts.note else ""
    parts = [
        f"{verdict}: {join_first(named, separator=', ')}" for verdict, named in by_verdict.items()
    ]
    first, *others = parts
    rest = "".join(f" {part[0].upper()}{part[1:]}." for part in others)
    return [f"{note}Compared with the baseline {baseline.label}, {first}.{rest}"]


def certainty(verdicts: SweepVerdicts) -> str:
    """From which ratio of throughputs on a difference can be told, and why."""
    ratios = verdicts.throughput.contrasts.smallest_ratios
    if ratios is None:
        return ""
    low, high = map(times, ratios)
    on = (
        f"about {high}× on"
        if ratios[1] / ratios[0] < 1.1
        else (f"about {low} to {high}× on, depending on the cells")
    )
    if verdicts.spread_is_measured:
        return f"A difference in throughput can be told here from {on}."
    return (
        f"{few_runs(verdicts)}, so a difference in throughput can be told only from {on} "
        f"({verdicts.source})."
    )


def _rest(others: Sequence[CellSummary], verdicts: MetricVerdicts) -> str:
    if len(others) < 2 or not verdicts.undecided(others):
        return ""
    return f" The order of the others is not decided.{_needed(others, verdicts)}"


def _needed(cells: Sequence[CellSummary], verdicts: MetricVerdicts) -> str:
    """How many repeats would probably decide the order of these cells."""
    if verdicts.has_no_common_block(cells):
        return " Some were never measured in the same block, so they cannot be compared."
    if not verdicts.contrasts.spread_is_measured:
        return " `repeats=4` would measure the spread, and may decide."
    more = verdicts.more_blocks(cells)
    if more is None:
        return " More than 100 further repeats would be needed to decide."
    total = more + max((cell.blocks for cell in cells), default=0)
    return f" `repeats={total}` would probably decide."
