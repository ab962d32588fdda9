"""The charts: their fixed ECharts options, and their data as it changes.

Colours are the page's CSS variables, which the SVG renderer passes to the browser, so a change of
theme needs no redraw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from crossbench.dashboard.board import HISTORY, Board
from crossbench.dashboard.figures import ClientWindow, Sample

SHORTEST_S = 60  # length of the time axis at the start
Points = list[list[float | None]]
Value = float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: a figure from the server's samples or from the client's windows."""

    name: str
    color: str
    from_sample: Callable[[Sample], Value] | None = None
    from_window: Callable[[ClientWindow], Value] | None = None
    right: bool = False  # uses the right axis
    stacked: bool = False
    dashed: bool = False
    keeps_last: bool = False  # repeats its last value in a second without requests

    def points(self, board: Board) -> Points:
        """Points [Unix ms, value], oldest first, with a gap at each start of a cell."""
        if self.from_sample is not None:
            found = [(item.time_s, self.from_sample(item)) for item in board.samples]
        else:
            assert self.from_window is not None
            found = [(item.time_s, self.from_window(item)) for item in board.windows]
        gaps = [(at, None) for at, _ in board.cell_starts]
        points: Points = []
        last: Value = None
        for at, value in sorted([*found, *gaps], key=itemgetter(0)):
            last = last if self.keeps_last and value is None and (at, None) not in gaps else value
            points.append([at * 1e3, _short(last)])
        return points


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled group of lines; `units` has the units of the left and, if used, the right axis.

    `{unit}` in them stands for the board's unit: pairs or texts.
    """

    key: str
    title: str
    units: Sequence[str]
    lines: Sequence[Line]

    def heading(self, board: Board) -> str:
        return f"{self.title}, {' / '.join(self.units).format(unit=board.unit)}"

    def options(self) -> dict[str, Any]:
        """The options that do not change."""
        return {
            "animation": False,
            "color": [f"var(--{line.color})" for line in self.lines],
            "grid": {
                "left": 46, "right": 46 if len(self.units) > 1 else 12, "top": 34, "bottom": 24,
            },
            "legend": {
                "top": 0, "right": 0, "itemWidth": 14, "itemHeight": 8, "itemGap": 12,
                "icon": "roundRect", "inactiveColor": "var(--line)",
                "textStyle": {"color": "var(--muted)", "fontSize": 12},
            },
            "tooltip": {
                "trigger": "axis", "className": "chart-tip", "transitionDuration": 0,
                "axisPointer": {"lineStyle": {"color": "var(--muted)"}, "animation": False},
                ":valueFormatter": "v => v == null ? '–' : v.toLocaleString('en', "
                "{maximumSignificantDigits: 4})",
            },
            "xAxis": {
                "type": "time", "splitNumber": 3, "axisTick": {"show": False},
                "axisLine": {"lineStyle": {"color": "var(--line)"}}, "splitLine": {"show": False},
                "axisLabel": {
                    "formatter": "{HH}:{mm}:{ss}", "color": "var(--muted)", "fontSize": 11,
                    "hideOverlap": True, "showMinLabel": False, "showMaxLabel": False,
                },
            },
            "yAxis": [self._axis(unit, side) for side, unit in enumerate(self.units)],
            "series": [self._series(line) for line in self.lines],
        }  # fmt: skip

    def updated(self, board: Board, time_s: float) -> dict[str, Any]:
        """The options that change: the data of the last minutes and the limits of the time axis."""
        series: list[dict[str, Any]] = [{"data": line.points(board)} for line in self.lines]
        first_s = board.samples[0].time_s if board.samples else time_s
        oldest_s = time_s - min(HISTORY, max(SHORTEST_S, time_s - first_s))
        marks = [
            {"xAxis": at * 1e3, "name": name} for at, name in board.cell_starts if at > oldest_s
        ]
        if board.cells_planned > 1:
            series[0]["markLine"] = {"data": marks}
        return {"xAxis": {"min": oldest_s * 1e3, "max": time_s * 1e3}, "series": series}

    def _axis(self, unit: str, side: int) -> dict[str, Any]:
        return {
            "type": "value", "min": 0, "splitNumber": 3, "position": ("left", "right")[side],
            **({"max": 100, "interval": 25} if unit == "%" else {}),
            "splitLine": {"show": side == 0, "lineStyle": {"color": "var(--line)"}},
            "axisLabel": {
                "color": "var(--muted)", "fontSize": 11,
                ":formatter": "v => v >= 1e4 ? v / 1e3 + 'k' : String(v)",
            },
        }  # fmt: skip

    def _series(self, line: Line) -> dict[str, Any]:
        return {
            "type": "line", "name": line.name, "data": [], "showSymbol": False, "silent": True,
            "yAxisIndex": int(line.right), "emphasis": {"disabled": True},
            "lineStyle": {"width": 1.8, "type": "dashed" if line.dashed else "solid"},
            **({"stack": "all", "areaStyle": {"opacity": 0.25}} if line.stacked else {}),
            "markLine": {
                "silent": True, "symbol": "none", "data": [], "animation": False,
                "lineStyle": {"color": "var(--muted)", "type": "dotted", "width": 1},
                "label": {"formatter": "{b}", "color": "var(--muted)", "fontSize": 10,
                          "position": "insideEndTop", "rotate": 0},
            },
        }  # fmt: skip


def _short(value: Value) -> Value:
    """Round to four significant digits, which is enough for a curve and keeps the data small."""
    return None if value is None else float(f"{value:.4g}")


def _recent(name: str, percentile: str) -> Callable[[Sample], Value]:
    def read(sample: Sample) -> Value:
        distribution = getattr(sample.metrics, name)
        return float(getattr(distribution, percentile)) if distribution.count else None

    return read


def _mean(stage: str) -> Callable[[Sample], Value]:
    return lambda sample: sample.interval.mean_ms(stage)


def _percent(value: Value) -> Value:
    return None if value is None else 100 * value


CHARTS = (
    Chart("throughput", "Throughput", ["{unit}/s"], [
        Line("server", "blue", lambda s: s.pairs_per_s),
        Line("client", "orange", from_window=lambda w: w.pairs_per_s, dashed=True),
    ]),
    Chart("latency", "Latency", ["ms"], [
        Line("p50", "blue", _recent("latency_ms", "p50")),
        Line("p95", "green", _recent("latency_ms", "p95")),
        Line("p99", "purple", _recent("latency_ms", "p99")),
        Line("client p50", "orange", from_window=lambda w: w.p50_ms, dashed=True),
        Line("client p95", "red", from_window=lambda w: w.p95_ms, dashed=True),
    ]),
    Chart("stages", "Stage times, mean per request", ["ms"], [
        Line("tokenise", "orange", _mean("tokenize"), stacked=True, keeps_last=True),
        Line("queue", "purple", _mean("queue"), stacked=True, keeps_last=True),
        Line("infer", "blue", _mean("infer"), stacked=True, keeps_last=True),
    ]),
    Chart("queue", "Queue", ["{unit}", "ms"], [
        Line("waiting", "blue", lambda s: s.metrics.queue_pairs),
        Line("mean wait, ms", "orange", _mean("queue"), right=True, keeps_last=True),
    ]),
    Chart("batches", "Micro-batches", ["{unit}", "%"], [
        Line("per micro-batch", "blue", lambda s: s.interval.pairs_per_batch, keeps_last=True),
        Line("padding waste, %", "orange", lambda s: _percent(s.interval.padding_waste),
             right=True, keeps_last=True),
    ]),
    Chart("usage", "CPU and memory of the server", ["cores", "MB"], [
        Line("cores", "blue", lambda s: s.cores),
        Line("resident MB", "green", lambda s: s.metrics.rss_mb, right=True),
    ]),
)  # fmt: skip

# Shown only if there is a device
GPU_CHART = Chart("gpu", "GPU", ["%", "MB"], [
    Line("utilisation, %", "blue",
         lambda s: max((100 * g.utilization for g in s.gpus), default=None)),
    Line("memory used, MB", "purple",
         lambda s: sum(g.memory_used_mb for g in s.gpus) if s.gpus else None, right=True),
    Line("model, MB", "green",
         lambda s: s.metrics.device_memory_mb if s.metrics.HasField("device_memory_mb") else None,
         right=True),
])  # fmt: skip
