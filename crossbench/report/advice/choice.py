"""The cell to serve: the highest throughput, under a bound of its p95 if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.report.advice.advice import rate
from crossbench.report.cells import CellSummary
from crossbench.report.verdicts import SweepVerdicts


@dataclass(frozen=True)
class Choice:
    """The best cell, those that may be as good, and how the others stand to the bound.

    `best` is None if no cell is known to be within the bound. `tied` are in the order of their
    throughput. The p95 of the `unknown` cells cannot be compared.
    """

    best: CellSummary | None
    tied: tuple[CellSummary, ...]
    within: tuple[CellSummary, ...]
    over: tuple[CellSummary, ...]
    unknown: tuple[CellSummary, ...]

    @property
    def nearest(self) -> CellSummary | None:
        """The cell over the bound whose p95 is the lowest."""
        return min(self.over, key=p95_of, default=None)


def choose(cells: Sequence[CellSummary], bound_ms: float | None, verdicts: SweepVerdicts) -> Choice:
    """Choose among cells that may be recommended and whose throughput is the server's."""
    known = [cell for cell in cells if bound_ms is None or cell.ranked_p95 is not None]
    within = [cell for cell in known if bound_ms is None or p95_of(cell) <= bound_ms]
    may_be_best = verdicts.throughput.may_be_best(within) or within
    best = max(may_be_best, key=rate_of, default=None)
    tied = sorted((cell for cell in may_be_best if cell is not best), key=rate_of, reverse=True)
    return Choice(
        best,
        tuple(tied),
        tuple(within),
        tuple(cell for cell in known if cell not in within),
        tuple(cell for cell in cells if cell not in known),
    )


def rate_of(cell: CellSummary) -> float:
    return rate(cell).value


def p95_of(cell: CellSummary) -> float:
    """The p95 latency in ms of a cell whose p95 can be compared."""
    assert cell.ranked_p95 is not None
    return cell.ranked_p95.value
