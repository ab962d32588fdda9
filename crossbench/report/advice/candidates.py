"""The cells of a sweep that can be marked as best, recommended, or lie on the frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossbench.measure.catalogue import KENDALL_TAU, MAX_ABS_DIFF, NDCG_AT_10, NDCG_AT_10_CHANGE
from crossbench.measure.ranking import Verdict, ranks_safely
from crossbench.report.cells import CellSummary, compared_unit
from crossbench.types import Pipeline, Quant
from crossbench.wording import number

NOT_VERIFIED = "ranking not verified"  # the reason why a lower precision is excluded


@dataclass(frozen=True, slots=True)
class Candidates:
    """The cells that may be recommended, and the reason why each other cell may not.

    `comparable` counts the cells that served a model, including those that change the ranking. With
    fewer than two of them no cell can be called the best.
    """

    cells: tuple[CellSummary, ...]
    comparable: int
    excluded: Mapping[str, str]
    unverified: bool  # of no cell the ranking was verified, so none was excluded for that

    def contains(self, cell: CellSummary) -> bool:
        return any(cell is chosen for chosen in self.cells)


def select_candidates(cells: Sequence[CellSummary]) -> Candidates:
    """Exclude cells that nobody would serve: not measured, no model, one stage, another ranking.

    Over-saturated cells and ramps are excluded too, as their latencies are not those of one load,
    and cells of another task than the first one, as pairs are not texts.

    A lower precision whose ranking was not verified is excluded if another cell ranks safely.
    """
    excluded: dict[str, str] = {}
    safe: list[CellSummary] = []
    unverified: list[CellSummary] = []
    changed = 0
    unit = compared_unit([cell for cell in cells if cell.computes_scores])
    for cell in cells:
        if cell.throughput is None or cell.p95 is None:
            why = "no request was answered" if cell.finished else cell.status
            excluded[cell.label] = f"not measured: {why}"
        elif cell.over_saturated:
            excluded[cell.label] = "over-saturated"
        elif cell.is_ramp:
            excluded[cell.label] = "a ramp of several loads"
        elif cell.flat.get("pipeline", Pipeline.FULL) != Pipeline.FULL:
            excluded[cell.label] = f"measures only {cell.flat['pipeline']}"
        elif not cell.computes_scores:
            excluded[cell.label] = "runs no model"
        elif cell.unit != unit:
            excluded[cell.label] = f"counts {cell.unit}, not {unit}"
        elif cell.disqualified:
            excluded[cell.label] = f"changes the ranking: {ranking_text(cell)}"
            changed += 1
        else:
            is_safe = ranks_safely(cell.verdict, cell.flat.get("quant", Quant.FP32))
            (safe if is_safe else unverified).append(cell)
    if safe:
        excluded |= {cell.label: NOT_VERIFIED for cell in unverified}
    order = {id(cell): index for index, cell in enumerate(cells)}
    chosen = sorted(safe or unverified, key=lambda cell: order[id(cell)])
    comparable = changed + len(safe) + len(unverified)
    return Candidates(tuple(chosen), comparable, excluded, unverified=not safe and bool(unverified))


def by_throughput(cells: Sequence[CellSummary]) -> list[CellSummary]:
    """The cells whose throughput is the server's, not the rate of an open loop."""
    return [cell for cell in cells if not cell.is_paced]


def keeps_ranking(cell: CellSummary) -> bool | None:
    """Whether the ranking is kept or no order changed; None if the check cannot say or did not run.

    A cell whose check found the same order everywhere may be the best, as no change was seen.
    """
    if cell.verdict is not None and cell.verdict.is_safe:
        return True
    return False if cell.disqualified else None


def kept_text(cell: CellSummary) -> str:
    """What is known about the cell's ranking, to follow the cell's name."""
    if cell.verdict is Verdict.SAME_ORDER:
        return "ranks all checked queries in the same order"
    return {True: "keeps the ranking", False: "changes the ranking", None: "ranking not verified"}[
        keeps_ranking(cell)
    ]


def ranking_text(cell: CellSummary) -> str:
    """The cell's ranking metrics as text."""
    metrics, parts = cell.metrics, []
    change = metrics.get(NDCG_AT_10_CHANGE.name)
    if change is not None:
        text = f"{NDCG_AT_10.title} {NDCG_AT_10_CHANGE.text(change)}"
        if ends := NDCG_AT_10_CHANGE.interval(metrics):
            low, high = map(NDCG_AT_10_CHANGE.text, ends)
            text += f", 95 % interval {low} to {high}"
        parts.append(text)
    if (tau := metrics.get(KENDALL_TAU.name)) is not None:
        parts.append(f"Kendall's tau {tau:.3f}")
    if (drift := metrics.get(MAX_ABS_DIFF.name)) is not None:
        parts.append(f"scores differ by up to {number(drift, 2)}")
    return "; ".join(parts) or "no quality metrics"
