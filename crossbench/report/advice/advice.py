"""A recommendation with its evidence and limits, and the text fragments they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.measure.catalogue import P95_LATENCY
from crossbench.report.cells import CellSummary, Estimate
from crossbench.report.columns import text_with_unit
from crossbench.report.metric_verdicts import MetricVerdicts, ratio_text, times
from crossbench.report.sweep_tables import estimate_text
from crossbench.report.verdicts import SweepVerdicts
from crossbench.settings.flatten import value_text


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`advice` is None if the data do not support any; `evidence` then says why."""

    topic: str
    advice: str | None
    evidence: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


def rate(cell: CellSummary) -> Estimate:
    """The throughput of a measured cell."""
    assert cell.throughput is not None
    return cell.throughput


def times_text(a: CellSummary, b: CellSummary, verdicts: SweepVerdicts) -> str:
    """Throughput of `a` over that of `b`, with its interval if the two can be compared."""
    found = verdicts.throughput.between(a, b)
    return f"{times(rate(a).value / rate(b).value)}×" if found is None else ratio_text(found)


def speed_text(a: CellSummary, b: CellSummary, verdicts: SweepVerdicts) -> str:
    """`times_text`, and the verdict on the difference.

    For two open loops it is the ratio of their p95, since their throughput is that of the load.
    """
    if a.is_paced and b.is_paced:
        p95 = p95_times_text(a, b)
        return f"{p95} the p95 at the same load" if p95 else "a p95 that cannot be compared"
    return f"{times_text(a, b, verdicts)} the throughput{verdict_suffix(a, b, verdicts.throughput)}"


def verdict_suffix(a: CellSummary, b: CellSummary, verdicts: MetricVerdicts) -> str:
    """`: faster`, `: cannot tell`; empty if the two cells cannot be compared."""
    found = verdicts.between(a, b)
    return "" if found is None else f": {verdicts.text(found)}"


def description(cell: CellSummary) -> str:
    """The cell's label with its throughput, p95 and flags."""
    p95 = f"{P95_LATENCY.short} {text_with_unit(P95_LATENCY, cell.metrics)}"
    flags = "".join(f", {flag}" for flag in cell.flags)
    return f"{cell.label} ({estimate_text(cell.throughput)} {cell.unit}/s, {p95}{flags})"


def p95_times_text(a: CellSummary, b: CellSummary) -> str:
    """The p95 of `a` over that of `b`: `1.50×`, empty if one cannot be compared."""
    if a.ranked_p95 is None or b.ranked_p95 is None or not b.ranked_p95.value:
        return ""
    return f"{a.ranked_p95.value / b.ranked_p95.value:.2f}×"


def flag_reasons(cell: CellSummary) -> dict[str, str]:
    """The cell's flags, each with the reason from the first run that has it."""
    reasons: dict[str, str] = {}
    for run in cell.runs:
        for flag, reason in run.result.flags.items():
            reasons.setdefault(str(flag), reason)
    return reasons


def few_runs(verdicts: SweepVerdicts) -> str:
    """Why the spread of these cells is only assumed."""
    if verdicts.blocks < 2:
        return "Each cell was measured once"
    return "The repeats are too few to show the spread"


def spread_limit(verdicts: SweepVerdicts) -> str:
    """How the spread from run to run of these cells is known."""
    if verdicts.spread_is_measured:
        return (
            f"The intervals are of these configurations, from up to {verdicts.blocks} repeats, and "
            "hold for all pairs of cells at once, so they are wider than those against a baseline."
        )
    return f"{few_runs(verdicts)}: the intervals assume the spread that is named under Verdicts."


def matched(
    cells: Sequence[CellSummary], axis: str, axes: Sequence[str]
) -> dict[tuple[str, ...], dict[str, CellSummary]]:
    """Group cells that differ only in `axis`: {values of the others: {value of `axis`: cell}}."""
    groups: dict[tuple[str, ...], dict[str, CellSummary]] = {}
    others = [name for name in axes if name != axis and not follows(name, axis, cells)]
    for cell in cells:
        key = tuple(value_text(name, cell.flat) for name in others)
        groups.setdefault(key, {})[cell.flat.get(axis, "–")] = cell
    return groups


def follows(name: str, axis: str, cells: Sequence[CellSummary]) -> bool:
    """Whether the value of `axis` determines that of `name`, as a backend may its precision."""
    pairs = {(cell.flat.get(axis), cell.flat.get(name)) for cell in cells}
    return name == "quant" and len(pairs) == len({first for first, _ in pairs})
