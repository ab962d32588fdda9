"""The verdicts on one metric of a sweep's cells: comparisons, the best cells, and their words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from crossbench.measure.contrasts import (
    Contrast,
    Contrasts,
    Difference,
)
from crossbench.measure.metric import Better, Metric
from crossbench.measure.winner import corrected_best
from crossbench.report.cells import CellSummary
from crossbench.report.judged import difference_text, is_better
from crossbench.wording import ABSENT, number

# The verdict on cells that share no block, for example because unlike machines measured them
NOT_TOGETHER = "not compared: never measured together"


@dataclass(frozen=True)
class MetricVerdicts:
    """The verdicts on one metric of the cells that can be compared in it.

    Throughput is named by that of pairs, also if the cells count texts.
    """

    metric: Metric
    cells: tuple[CellSummary, ...]
    contrasts: Contrasts
    margin: float

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {cell.name: place for place, cell in enumerate(self.cells)}

    def _mean_log(self, cell: CellSummary) -> float:
        return float(self.contrasts.fit.means[self._places[cell.name]])

    def between(self, a: CellSummary, b: CellSummary) -> Contrast | None:
        """Return the contrast of `a` with `b`; None if one of them cannot be compared.

        It is simultaneous over all pairs of cells, so any number of them may be read together.
        """
        if a.name not in self._places or b.name not in self._places or a is b:
            return None
        return self.contrasts.pair(self._places[a.name], self._places[b.name])

    def against(self, baseline: CellSummary) -> Mapping[str, Contrast]:
        """Return the contrast of every other cell with the baseline, by the cell's name.

        The contrasts are simultaneous over the comparisons with the baseline.
        """
        place = self._places.get(baseline.name)
        if place is None or len(self.cells) < 2:
            return {}
        found = self.contrasts.against(place)
        return {
            cell.name: contrast
            for cell, contrast in zip(self.cells, found, strict=True)
            if cell.name != baseline.name
        }

    def better(self, a: CellSummary, b: CellSummary) -> bool:
        """Return whether `a` is shown to be better than `b`."""
        found = self.between(a, b)
        return found is not None and is_better(self.metric, found.difference)

    def may_be_best(self, cells: Sequence[CellSummary]) -> list[CellSummary]:
        """Return those of the cells that no other one of them is shown to be better than.

        If a single cell would be left without being shown to be better than all the others, which
        can happen if runs are missing, these others may be the best too.
        """
        inside = [cell for cell in cells if cell.name in self._places]
        left = [
            cell
            for cell in inside
            if not any(self.better(other, cell) for other in inside if other is not cell)
        ]
        if len(left) > 1:
            return left
        return [
            cell for cell in inside if not left or cell is left[0] or not self.better(left[0], cell)
        ]

    def best_first(self, cells: Sequence[CellSummary]) -> list[CellSummary]:
        """Return the cells in the order of their values, the best one first."""
        highest = self.metric.better is Better.HIGHER
        return sorted(cells, key=self._mean_log, reverse=highest)

    def corrected(self, best: CellSummary, cells: Sequence[CellSummary]) -> float | None:
        """Return the value of the best of `cells`, corrected for having been picked as the best.

        None if the spread is not measured: then the correction would depend on an assumption.
        """
        if not self.contrasts.spread_is_measured:
            return None
        tied = [self._places[cell.name] for cell in self.may_be_best(cells)]
        return corrected_best(self.contrasts, tied, self._places[best.name])

    def undecided(self, cells: Sequence[CellSummary]) -> bool:
        """Return whether the difference between two of the cells cannot be told."""
        return any(
            (found := self.between(a, b)) is not None and found.difference is Difference.UNKNOWN
            for a, b in itertools.combinations(cells, 2)
        )

    def has_no_common_block(self, cells: Sequence[CellSummary]) -> bool:
        """Return whether two of the cells were never measured in the same block."""
        return any(
            (found := self.between(a, b)) is not None and found.low is None
            for a, b in itertools.combinations(cells, 2)
        )

    def more_blocks(self, cells: Sequence[CellSummary]) -> int | None:
        """Return how many further blocks would probably decide all undecided pairs of the cells.

        0 if all are decided, None if more than 100 blocks would be needed.
        """
        needed = 0
        for a, b in itertools.combinations(cells, 2):
            found = self.between(a, b)
            if found is None or found.difference is not Difference.UNKNOWN:
                continue
            if found.more_blocks is None:
                return None
            needed = max(needed, found.more_blocks)
        return needed

    def text(self, contrast: Contrast) -> str:
        """Return a verdict in words, such as `faster` or `cannot tell`."""
        if contrast.low is None:
            return NOT_TOGETHER
        return difference_text(self.metric, contrast.difference, self.margin)


def ratio_text(contrast: Contrast) -> str:
    """`1.40× (1.31 to 1.50)`; for cells that were never measured together, `–`."""
    if contrast.low is None or contrast.high is None:
        return ABSENT
    return f"{times(contrast.ratio)}× ({times(contrast.low)} to {times(contrast.high)})"


def times(ratio: float) -> str:
    """A ratio with two decimals, and with fewer from 10 on."""
    return f"{ratio:.2f}" if ratio < 10 else number(ratio)
