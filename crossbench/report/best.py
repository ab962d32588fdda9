"""The best cells of a sweep: those that no other cell is shown to be better than.

Sweeps are compared by throughput and by p95. If a single cell is left, it is the best. If several
are left, each of them may be the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.report.advice.candidates import Candidates, by_throughput, select_candidates
from crossbench.report.cells import CellSummary
from crossbench.report.metric_verdicts import MetricVerdicts
from crossbench.report.verdicts import SweepVerdicts

BEST_MARK, MAYBE_MARK = "★ ", "☆ "


@dataclass(frozen=True)
class Best:
    """The cells that may be the best, the one with the best value first.

    `fastest` and `lowest_p95` are empty if there is nothing to compare. `by_load` has, for each
    open loop that several cells have, those that may have the lowest p95, and all of them.
    """

    candidates: Candidates
    fastest: tuple[CellSummary, ...]
    lowest_p95: tuple[CellSummary, ...]
    by_load: tuple[tuple[tuple[CellSummary, ...], list[CellSummary]], ...]

    def lowest_p95_at_load(self, cell: CellSummary) -> tuple[CellSummary, ...]:
        """The cells that may have the lowest p95 of those with the load of `cell`."""
        for lowest, same in self.by_load:
            if any(cell is other for other in same):
                return lowest
        return () if cell.is_paced else self.lowest_p95


def best_cells(cells: Sequence[CellSummary], verdicts: SweepVerdicts) -> Best:
    candidates = select_candidates(cells)
    compared = _one_load(candidates)
    return Best(
        candidates,
        fastest_cells(candidates, verdicts),
        _may_be_best(verdicts.p95, compared),
        _lowest_p95_by_load(candidates, verdicts.p95),
    )


def fastest_cells(candidates: Candidates, verdicts: SweepVerdicts) -> tuple[CellSummary, ...]:
    """The cells that may have the highest throughput; empty if there is nothing to compare.

    Cells with an open loop are left out, because their throughput is the rate of their load.
    """
    return _may_be_best(verdicts.throughput, _one_load(candidates))


def mark(cell: CellSummary, best: Sequence[CellSummary]) -> str:
    """The mark of the best cell, or of each cell that may be it; empty for the others."""
    if not any(cell is other for other in best):
        return ""
    return BEST_MARK if len(best) == 1 else MAYBE_MARK


def contenders(candidates: Candidates) -> Sequence[CellSummary]:
    """The cells of which one can be called the best; empty if there is nothing to compare."""
    return candidates.cells if candidates.comparable > 1 else ()


def _may_be_best(verdicts: MetricVerdicts, cells: Sequence[CellSummary]) -> tuple[CellSummary, ...]:
    return tuple(verdicts.best_first(verdicts.may_be_best(cells)))


def _lowest_p95_by_load(
    candidates: Candidates, p95: MetricVerdicts
) -> tuple[tuple[tuple[CellSummary, ...], list[CellSummary]], ...]:
    by_load: dict[tuple[tuple[str, str], ...], list[CellSummary]] = {}
    for cell in contenders(candidates):
        if cell.is_paced and not cell.is_ramp:
            load = {key: text for key, text in cell.flat.items() if key.split(".")[0] == "load"}
            by_load.setdefault(tuple(sorted(load.items())), []).append(cell)
    return tuple(
        (best, same)
        for same in by_load.values()
        if len(same) > 1 and (best := _may_be_best(p95, same))
    )


def _one_load(candidates: Candidates) -> Sequence[CellSummary]:
    """The contenders without open loops; none if a single one would be left of several."""
    all_cells = contenders(candidates)
    kept = by_throughput(all_cells)
    return kept if len(kept) > 1 or len(kept) == len(all_cells) else ()
