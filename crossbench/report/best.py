"""The best cells of a sweep: highest throughput and lowest p95, and what is as good as them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossbench.report.advice.candidates import Candidates, by_throughput, select_candidates
from crossbench.report.cells import CellSummary, Estimate, distinguishable

SAME_MARK = "≈ "
GetEstimate = Callable[[CellSummary], Estimate | None]


@dataclass(frozen=True)
class Best:
    """The best cells of a sweep; `fastest` and `lowest_p95` are None without anything to compare.

    `by_load` has, for each open loop that several cells have, the one with the lowest p95, and all
    of them. `baseline` is the cell of speed-up 1: the first measured one whose throughput is that
    of the server.
    """

    candidates: Candidates
    fastest: CellSummary | None
    lowest_p95: CellSummary | None
    by_load: tuple[tuple[CellSummary, list[CellSummary]], ...]
    baseline: CellSummary | None


def best_cells(cells: Sequence[CellSummary]) -> Best:
    candidates = select_candidates(cells)
    return Best(
        candidates,
        fastest_cell(candidates),
        lowest_p95_cell(candidates),
        _lowest_p95_by_load(candidates),
        _baseline(cells),
    )


def throughput_of(cell: CellSummary) -> Estimate | None:
    return cell.throughput


def ranked_p95_of(cell: CellSummary) -> Estimate | None:
    return cell.ranked_p95


def fastest_cell(candidates: Candidates) -> CellSummary | None:
    """The cell with the highest throughput; None if there is nothing to compare.

    Cells with an open loop are left out, because their throughput is the rate of their load.
    """
    return best_of(_one_load(candidates), throughput_of, max)


def lowest_p95_cell(candidates: Candidates) -> CellSummary | None:
    """The cell with the lowest p95; None if there is nothing to compare. Without open loops."""
    return best_of(_one_load(candidates), ranked_p95_of, min)


def _lowest_p95_by_load(
    candidates: Candidates,
) -> tuple[tuple[CellSummary, list[CellSummary]], ...]:
    by_load: dict[tuple[tuple[str, str], ...], list[CellSummary]] = {}
    for cell in contenders(candidates):
        if cell.is_paced and not cell.is_ramp:
            load = {key: text for key, text in cell.flat.items() if key.split(".")[0] == "load"}
            by_load.setdefault(tuple(sorted(load.items())), []).append(cell)
    return tuple(
        (best, same)
        for same in by_load.values()
        if len(same) > 1 and (best := best_of(same, ranked_p95_of, min)) is not None
    )


def _one_load(candidates: Candidates) -> Sequence[CellSummary]:
    """The contenders without open loops; none if a single one would be left of several."""
    all_cells = contenders(candidates)
    kept = by_throughput(all_cells)
    return kept if len(kept) > 1 or len(kept) == len(all_cells) else ()


def _baseline(cells: Sequence[CellSummary]) -> CellSummary | None:
    return next(
        (
            cell
            for cell in by_throughput(cells)
            if cell.throughput is not None and not cell.is_ramp and not cell.over_saturated
        ),
        None,
    )


def contenders(candidates: Candidates) -> Sequence[CellSummary]:
    """The cells of which one can be called the best; empty if there is nothing to compare."""
    return candidates.cells if candidates.comparable > 1 else ()


def best_of(
    cells: Sequence[CellSummary],
    get: GetEstimate,
    pick: Callable[[list[float]], float],
) -> CellSummary | None:
    """The cell with the highest (`pick=max`) or lowest (`pick=min`) value; None without a value."""
    found = [(value, cell) for cell in cells if (value := get(cell)) is not None]
    if not found:
        return None
    wanted = pick([value.value for value, _ in found])
    return next(cell for value, cell in found if value.value == wanted)


def same_mark(a: Estimate | None, b: Estimate | None) -> str:
    if a is None or b is None or a is b:
        return ""
    return SAME_MARK if distinguishable(a, b) is False else ""
