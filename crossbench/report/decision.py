"""The decision that a sweep supports, in the first lines of its report: what to serve, and why."""

from __future__ import annotations

from crossbench.measure import catalogue
from crossbench.measure.catalogue import NDCG_AT_10, P95_LATENCY, RSS_PEAK_MB
from crossbench.report.advice.candidates import Candidates, by_throughput
from crossbench.report.advice.choice import Choice, choose
from crossbench.report.answer import certainty
from crossbench.report.cells import CellSummary
from crossbench.report.columns import text_with_unit
from crossbench.report.configuration import serve_command
from crossbench.report.flags import flagged
from crossbench.report.markdown import Section
from crossbench.report.metric_verdicts import ratio_text
from crossbench.report.sweep_tables import estimate_text, verdict_text
from crossbench.report.tables import markdown_table
from crossbench.report.verdicts import SweepVerdicts
from crossbench.results import Flag
from crossbench.wording import ABSENT, counted, join_first, number

_LISTED = 4  # cells that cannot be told from the best one


def decision(
    candidates: Candidates, bound_ms: float | None, verdicts: SweepVerdicts
) -> list[Section]:
    """Return the table of the decision and the command that serves; empty if none is to be made.

    That is so with fewer than two cells that can be recommended, or if their throughput is the
    rate of an open loop: the report then begins with the rates that hold.
    """
    cells = by_throughput(candidates.cells)
    if len(cells) < 2 or len(cells) < len(candidates.cells):
        return []
    chosen = choose(cells, bound_ms, verdicts)
    best = chosen.best
    if best is None:
        nearest = chosen.nearest
        if nearest is None or bound_ms is None:
            return []
        return [
            f"**No cell keeps its p95 within {number(bound_ms)} ms.** The closest is "
            f"{nearest.label} with {text_with_unit(P95_LATENCY, nearest.metrics)}."
        ]
    rows = [
        ("serve", _serve(chosen, verdicts)),
        ("latency", _latency(best, bound_ms)),
        ("gain", _gain(best, verdicts)),
        ("cost", _cost(best)),
        ("memory", _memory(chosen, verdicts)),
        ("ranking", _ranking(best)),
        ("how sure", _certainty(best, verdicts)),
    ]
    table = markdown_table(["decision", ""], [(f"**{name}**", text) for name, text in rows if text])
    command = serve_command(best.runs[0].result.config)
    if not command:
        return [table]
    of_which = f" of {best.label}" if chosen.tied else ""
    return [table, f"The server{of_which} without the measurement:", command]


def _serve(chosen: Choice, verdicts: SweepVerdicts) -> str:
    best = chosen.best
    assert best is not None
    speed = f"{estimate_text(best.throughput)} {best.unit}/s"
    if not chosen.tied:
        return f"**{best.label}**{flagged(best)}: {speed}"
    same = not verdicts.throughput.undecided([best, *chosen.tied])
    others = join_first([cell.label for cell in chosen.tied[:_LISTED]])
    if (more := len(chosen.tied) - _LISTED) > 0:
        others += f" and {more} more"
    if same:
        return f"**{best.label}**{flagged(best)}: {speed}; as fast, within the margin: {others}"
    return (
        f"**which of {len(chosen.tied) + 1} cells is the fastest cannot be told:** "
        f"**{best.label}**{flagged(best)}, {speed}; {others}"
    )


def _latency(best: CellSummary, bound_ms: float | None) -> str:
    p95 = f"p95 {text_with_unit(P95_LATENCY, best.metrics)}"
    if bound_ms is None:
        return f"{p95}; no bound was given (`report.latency_bound_ms=…`)"
    above = best.p95.above if best.p95 is not None else None
    sure = above is not None and best.p95 is not None and best.p95.value + above <= bound_ms
    kept = "kept" if sure else "kept by the estimate, but its interval reaches beyond it"
    return f"{p95}; the bound of {number(bound_ms)} ms is {kept}"


def _gain(best: CellSummary, verdicts: SweepVerdicts) -> str:
    baseline, throughput = verdicts.baseline, verdicts.throughput
    if baseline is None:
        return "there is no baseline to compare with"
    if best.name == baseline.name:
        return f"none: {best.label} is the baseline"
    contrast = throughput.against(baseline).get(best.name)
    if contrast is None or contrast.low is None:
        why = "" if contrast is None else ", as they were never measured together"
        return f"not comparable with the baseline {baseline.label}{why}"
    return f"{ratio_text(contrast)} the baseline {baseline.label}: {throughput.text(contrast)}"


def _memory(chosen: Choice, verdicts: SweepVerdicts) -> str:
    best, baseline = chosen.best, verdicts.baseline
    assert best is not None
    if RSS_PEAK_MB.name not in best.metrics:
        return "not known, as the server is not crossbench's own"
    parts = [f"{text_with_unit(RSS_PEAK_MB, best.metrics)} at its peak"]
    if baseline is not None and baseline.name != best.name and RSS_PEAK_MB.name in baseline.metrics:
        parts.append(f"baseline: {text_with_unit(RSS_PEAK_MB, baseline.metrics)}")
    less = [cell for cell in chosen.tied if verdicts.memory.better(cell, best)]
    if less:
        least = min(less, key=lambda cell: cell.metrics[RSS_PEAK_MB.name])
        memory = text_with_unit(RSS_PEAK_MB, least.metrics)
        parts.append(f"**{least.label}** needs less: {memory}")
    return "; ".join(parts)


def _cost(best: CellSummary) -> str:
    per_day, cost = catalogue.per_day(best.unit), catalogue.cost(best.unit)
    if cost.name not in best.metrics:
        return ""
    return (
        f"{text_with_unit(cost, best.metrics)} per million {best.unit}; at most "
        f"{text_with_unit(per_day, best.metrics)} million a day"
    )


def _ranking(best: CellSummary) -> str:
    verdict = verdict_text(best)
    if verdict == ABSENT:
        return "not checked"
    if NDCG_AT_10.name not in best.metrics:
        return verdict
    return f"{verdict}; nDCG@10 {text_with_unit(NDCG_AT_10, best.metrics)}"


def _certainty(best: CellSummary, verdicts: SweepVerdicts) -> str:
    repeats = f"{counted(best.blocks, 'repeat')} of each cell. " if best.blocks > 1 else ""
    disturbed = "Other work disturbed it. " if Flag.DISTURBED in best.flags else ""
    return f"{repeats}{disturbed}{certainty(verdicts)}" or ABSENT
