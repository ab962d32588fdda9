"""The charts: ECharts options that stand still, and the data that move through them.

Colours are the page's CSS variables (the SVG renderer hands them to the browser), so a change of
theme needs no new drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from crossbench.dashboard.board import HISTORY, Board
from crossbench.dashboard.figures import ClientWindow, Sample

SHORTEST_S = 60  # that the time axis shows, when there is no more to see yet
Points = list[list[float | None]]
Value = float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: a figure of the server's samples, or of the client's windows."""

    name: str
    color: str
    of_sample: Callable[[Sample], Value] | None = None
    of_window: Callable[[ClientWindow], Value] | None = None
    right: bool = False  # on the second axis
    stacked: bool = False
    dashed: bool = False
    held: bool = False  # a mean over requests stays as it was in a second without any

    def points(self, board: Board) -> Points:
        """[Unix ms, value], oldest first, with a gap where another cell began."""
        if self.of_sample is not None:
            found = [(item.time_s, self.of_sample(item)) for item in board.samples]
        else:
            assert self.of_window is not None
            found = [(item.time_s, self.of_window(item)) for item in board.windows]
        gaps = [(at, None) for at, _ in board.marks]
        points: Points = []
        last: Value = None
        for at, value in sorted([*found, *gaps], key=itemgetter(0)):
            last = last if self.held and value is None and (at, None) not in gaps else value
            points.append([at * 1e3, _short(last)])
        return points


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled group of lines; `units` are those of the left axis and, where used, the right.

    `{unit}` among them is what the board counts: pairs or texts.
    """

    key: str
    title: str
    units: Sequence[str]
    lines: Sequence[Line]

    def heading(self, board: Board) -> str:
        return f"{self.title}, {' / '.join(self.units).format(unit=board.unit)}"

    def options(self) -> dict[str, Any]:
        """What never changes."""
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

    def moved(self, board: Board, time_s: float) -> dict[str, Any]:
        """What is new: the last minutes up to now, on the axis that moves with them."""
        series: list[dict[str, Any]] = [{"data": line.points(board)} for line in self.lines]
        first_s = board.samples[0].time_s if board.samples else time_s
        oldest_s = time_s - min(HISTORY, max(SHORTEST_S, time_s - first_s))
        marks = [{"xAxis": at * 1e3, "name": name} for at, name in board.marks if at > oldest_s]
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
    """Four digits that count: a curve of pixels needs no more, and the page loads less."""
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
        Line("client", "orange", of_window=lambda w: w.pairs_per_s, dashed=True),
    ]),
    Chart("latency", "Latency", ["ms"], [
        Line("p50", "blue", _recent("latency_ms", "p50")),
        Line("p95", "green", _recent("latency_ms", "p95")),
        Line("p99", "purple", _recent("latency_ms", "p99")),
        Line("client p50", "orange", of_window=lambda w: w.p50_ms, dashed=True),
        Line("client p95", "red", of_window=lambda w: w.p95_ms, dashed=True),
    ]),
    Chart("stages", "Stage times, mean of a request", ["ms"], [
        Line("tokenise", "orange", _mean("tokenize"), stacked=True, held=True),
        Line("queue", "purple", _mean("queue"), stacked=True, held=True),
        Line("infer", "blue", _mean("infer"), stacked=True, held=True),
    ]),
    Chart("queue", "Queue", ["{unit}", "ms"], [
        Line("waiting", "blue", lambda s: s.metrics.queue_pairs),
        Line("mean wait, ms", "orange", _mean("queue"), right=True, held=True),
    ]),
    Chart("batches", "Micro-batches", ["{unit}", "%"], [
        Line("in each", "blue", lambda s: s.interval.pairs_per_batch, held=True),
        Line("padding waste, %", "orange", lambda s: _percent(s.interval.padding_waste),
             right=True, held=True),
    ]),
    Chart("usage", "CPU and memory of the server", ["cores", "MB"], [
        Line("cores", "blue", lambda s: s.cores),
        Line("resident MB", "green", lambda s: s.metrics.rss_mb, right=True),
    ]),
)  # fmt: skip

# Shown where there is one
GPU_CHART = Chart("gpu", "GPU", ["%", "MB"], [
    Line("busy, %", "blue", lambda s: max((100 * g.utilization for g in s.gpus), default=None)),
    Line("memory of all, MB", "purple",
         lambda s: sum(g.memory_used_mb for g in s.gpus) if s.gpus else None, right=True),
    Line("model, MB", "green",
         lambda s: s.metrics.device_memory_mb if s.metrics.HasField("device_memory_mb") else None,
         right=True),
])  # fmt: skip
