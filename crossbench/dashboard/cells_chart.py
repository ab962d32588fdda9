"""The chart that compares the cells so far: throughput and p95 latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crossbench.dashboard.board import Board
from crossbench.dashboard.cell_row import CellRow
from crossbench.dashboard.charts import TOOLTIP, Key, axis, style
from crossbench.dashboard.tiles import figure
from crossbench.measure.catalogue import P95_LATENCY
from crossbench.measure.metric import Metric

CELLS_KEY = "cells"
_MOST_WITH_NUMBERS = 8  # up to this many cells, the bars have their numbers
_RATE, _LATENCY = "blue", "orange"
# The figures have the same text as in the table
_TOOLTIP = (
    "items => [`cell ${items[0].name}`, ...items.filter(i => i.data)"
    ".map(i => `${i.seriesName}: ${i.data.label.formatter}`)].join('<br>')"
)


@dataclass(frozen=True, slots=True)
class CellsChart:
    """Two bars per cell; cells without a value have none."""

    key: str = CELLS_KEY
    title: str = "Cells so far"

    @property
    def keys(self) -> list[Key]:
        """The entries of its legend."""
        return [Key("throughput", _RATE), Key(P95_LATENCY.title, _LATENCY)]

    @property
    def about(self) -> str:
        """What it shows, for those who cannot see it; the table beside it has the numbers."""
        return "Throughput and p95 latency of each cell so far"

    def heading(self, board: Board) -> str:
        units = dict.fromkeys(row.rate.unit for row in board.rows)
        return f"{self.title}, {' or '.join(units) or 'pairs/s'} / {P95_LATENCY.unit}"

    def is_shown(self, board: Board) -> bool:
        """Whether there is more than one cell to compare."""
        return board.cells_planned > 1

    def options(self) -> dict[str, Any]:
        """The options that do not change: throughput above, p95 below, over the same cells."""
        return {
            **style([_RATE, _LATENCY], two_axes=False),
            "grid": [{"left": 46, "right": 16, "height": 80, "top": top} for top in (20, 138)],
            "tooltip": {**TOOLTIP, ":formatter": _TOOLTIP},
            "axisPointer": {"link": [{"xAxisIndex": "all"}]},
            "xAxis": [self._cells_axis(grid) for grid in (0, 1)],
            "yAxis": [{**axis(0, {}), "gridIndex": grid, "splitNumber": 2} for grid in (0, 1)],
            "series": [
                self._bars(grid, name)
                for grid, name in enumerate(("throughput", P95_LATENCY.title))
            ],
        }

    def _cells_axis(self, grid: int) -> dict[str, Any]:
        return {
            "type": "category", "gridIndex": grid, "axisTick": {"show": False},
            "axisLine": {"lineStyle": {"color": "var(--line)"}},
            "axisLabel": {"color": "var(--muted)", "fontSize": 11, "hideOverlap": True},
        }  # fmt: skip

    def _bars(self, grid: int, name: str) -> dict[str, Any]:
        return {
            "type": "bar", "name": name, "xAxisIndex": grid, "yAxisIndex": grid, "data": [],
            "barMaxWidth": 44, "barCategoryGap": "30%", "emphasis": {"disabled": True},
            "itemStyle": {"borderRadius": [3, 3, 0, 0]},
            "label": {"position": "top", "distance": 3, "color": "var(--ink)", "fontSize": 11},
            "labelLayout": {"hideOverlap": True},
        }  # fmt: skip

    def updated(self, board: Board, time_s: float) -> dict[str, Any]:
        """The options that change: the names and figures of the cells."""
        rows = [board.cells.get(number) for number in range(board.cells_planned)]
        names = {"data": [str(number + 1) for number in range(len(rows))]}
        numbers = {"show": len(rows) <= _MOST_WITH_NUMBERS}
        return {
            "xAxis": [names, names],
            "series": [
                {"data": [_item(row, row.rate) if row else None for row in rows],
                 "label": numbers},
                {"data": [_item(row, P95_LATENCY) if row else None for row in rows],
                 "label": numbers},
            ],
        }  # fmt: skip


def _item(row: CellRow, metric: Metric) -> dict[str, Any] | None:
    """The figure of a cell that has ended, as the table shows it; None without one."""
    value = None if row.is_running else row.figures.get(metric.name)
    if value is None:
        return None
    return {"value": value, "label": {"formatter": figure(metric, row.figures)}}
