"""The charts: their fixed ECharts options, and their data as it changes.

Colours are the page's CSS variables, which the SVG renderer passes to the browser, so a change of
theme needs no redraw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal

from crossbench.dashboard.board import Board
from crossbench.dashboard.figures import ClientWindow, Sample
from crossbench.dashboard.server_side import HISTORY
from crossbench.serving import inference_pb2 as pb

SHORTEST_S = 60  # length of the time axis at the start
# Of the time axis: the widths of `cell 12` and of `12` on a phone
NAME_SHARE, NUMBER_SHARE = 0.15, 0.06
TOOLTIP = {
    "trigger": "axis", "className": "chart-tip", "transitionDuration": 0, "confine": True,
    "axisPointer": {"lineStyle": {"color": "var(--muted)"}, "animation": False},
    ":valueFormatter": "v => v == null ? '–' : v.toLocaleString('en', "
    "{maximumSignificantDigits: 4})",
}  # fmt: skip
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
            found = [(item.time_s, self.from_sample(item)) for item in board.server.samples]
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
class Key:
    """One entry of a chart's legend; `color` is one of the page's variables."""

    name: str
    color: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled group of lines; `units` has the units of the left and, if used, the right axis.

    `{unit}` in them stands for the board's unit: pairs or texts. `of` says whose figures the lines
    are: those of a running cell, of a server without a cell, or of both.
    """

    key: str
    title: str
    units: Sequence[str]
    lines: Sequence[Line]
    of: Literal["cell", "server", "both"] = "both"
    needs_device: bool = False

    @property
    def keys(self) -> list[Key]:
        """The entries of its legend."""
        return [Key(line.name, line.color, line.dashed) for line in self.lines]

    @property
    def about(self) -> str:
        """What it shows, for those who cannot see it."""
        names = ", ".join(line.name for line in self.lines)
        return f"{self.title} over the last minutes: {names}"

    def heading(self, board: Board) -> str:
        return f"{self.title}, {' / '.join(self.units).format(unit=board.unit)}"

    def is_shown(self, board: Board) -> bool:
        """Whether the board has, or will have, something to draw."""
        if board.is_stored or (self.needs_device and not board.server.has_device):
            return False
        return self.of == "both" or (self.of == "cell") == bool(board.cells_planned)

    def options(self) -> dict[str, Any]:
        """The options that do not change."""
        return {
            **style([line.color for line in self.lines], two_axes=len(self.units) > 1),
            "xAxis": {
                "type": "time", "splitNumber": 3, "axisTick": {"show": False},
                "axisLine": {"lineStyle": {"color": "var(--line)"}}, "splitLine": {"show": False},
                "axisLabel": {
                    "formatter": "{HH}:{mm}:{ss}", "color": "var(--muted)", "fontSize": 11,
                    "hideOverlap": True, "showMinLabel": False, "showMaxLabel": False,
                    "margin": 12,
                },
            },
            "yAxis": [
                axis(side, {"max": 100, "interval": 25} if unit == "%" else {})
                for side, unit in enumerate(self.units)
            ],
            "series": [self._series(line) for line in self.lines],
        }  # fmt: skip

    def updated(self, board: Board, time_s: float) -> dict[str, Any]:
        """The options that change: the data of the last minutes and the limits of the time axis.

        After the end of the run, these are its last minutes.
        """
        time_s = board.ended_s or time_s
        series: list[dict[str, Any]] = [{"data": line.points(board)} for line in self.lines]
        first_s = min((item[0].time_s for item in (board.server.samples, board.windows) if item),
                      default=time_s)  # fmt: skip
        oldest_s = time_s - min(HISTORY, max(SHORTEST_S, time_s - first_s))
        if board.cells_planned > 1:
            series[0]["markLine"] = {"data": marks(board.cell_starts, oldest_s, time_s)}
        return {"xAxis": {"min": oldest_s * 1e3, "max": time_s * 1e3}, "series": series}

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
                          "position": "end", "rotate": 0},
            },
        }  # fmt: skip


def marks(
    starts: Iterable[tuple[float, int]], oldest_s: float, newest_s: float
) -> list[dict[str, Any]]:
    """Lines at the starts of cells, Unix times with numbers from 1; their names do not overlap.

    If there is no room for `cell 3`, only the first name is so long, and the others are numbers. Of
    cells that follow each other at once, the last one has its number.
    """
    shown = [(at, number) for at, number in starts if at > oldest_s]
    span_s = newest_s - oldest_s
    name_s, number_s = NAME_SHARE * span_s, NUMBER_SHARE * span_s
    is_roomy = all(later - at >= name_s for (at, _), (later, _) in pairwise(shown))
    half_s = (name_s if is_roomy else number_s) / 2
    named: list[tuple[float, int]] = []  # newest first
    for at, number in reversed(shown):
        if at - half_s >= oldest_s and (not named or at + half_s <= named[-1][0] - half_s):
            named.append((at, number))
    texts = {mark: f"cell {mark[1]}" if is_roomy else str(mark[1]) for mark in named}
    if named and not is_roomy:
        at, number = named[-1]
        free_until_s = named[-2][0] - half_s if len(named) > 1 else newest_s
        if at - name_s / 2 >= oldest_s and at + name_s / 2 <= free_until_s:
            texts[named[-1]] = f"cell {number}"
    return [{"xAxis": mark[0] * 1e3, "name": texts.get(mark, "")} for mark in shown]


def style(colors: Sequence[str], *, two_axes: bool) -> dict[str, Any]:
    """The options that all charts have in common. The page has the legends, so that they wrap."""
    return {
        "animation": False,
        "color": [f"var(--{color})" for color in colors],
        "grid": {"left": 46, "right": 46 if two_axes else 16, "top": 22, "bottom": 24},
        "tooltip": TOOLTIP,
    }  # fmt: skip


def axis(side: int, limits: Mapping[str, Any]) -> dict[str, Any]:
    """The vertical axis on the left (side 0) or on the right (1)."""
    return {
        "type": "value", "min": 0, "splitNumber": 3, "position": ("left", "right")[side], **limits,
        "splitLine": {"show": side == 0, "lineStyle": {"color": "var(--line)"}},
        "axisLabel": {
            "color": "var(--muted)", "fontSize": 11,
            ":formatter": "v => v >= 1e4 ? v / 1e3 + 'k' : String(v)",
        },
    }  # fmt: skip


def _short(value: Value) -> Value:
    """Round to four significant digits, which is enough for a curve and keeps the data small."""
    return None if value is None else float(f"{value:.4g}")


def _recent(percentile: str) -> Callable[[Sample], Value]:
    def read(sample: Sample) -> Value:
        recent = sample.metrics.latency_ms
        return float(getattr(recent, percentile)) if recent.count else None

    return read


def _mean(stage: str) -> Callable[[Sample], Value]:
    return lambda sample: sample.interval.mean_ms(stage)


def _model_mb(metrics: pb.Metrics) -> Value:
    return metrics.device_memory_mb if metrics.HasField("device_memory_mb") else None


def _percent(value: Value) -> Value:
    return None if value is None else 100 * value


_OF_CELL = (
    Chart("throughput", "Throughput", ["{unit}/s"], [
        Line("so far", "blue", from_window=lambda w: w.so_far_per_s),
        Line("each second", "orange", from_window=lambda w: w.pairs_per_s, dashed=True),
    ], of="cell"),
    Chart("latency", "Latency of each second's requests", ["ms"], [
        Line("p50", "blue", from_window=lambda w: w.p50_ms),
        Line("p95", "green", from_window=lambda w: w.p95_ms),
        Line("p99", "purple", from_window=lambda w: w.p99_ms),
    ], of="cell"),
)  # fmt: skip
_OF_SERVER = (
    Chart("server_throughput", "Throughput", ["{unit}/s"], [
        Line("mean of 5 s", "blue", lambda s: s.pairs_per_s),
    ], of="server"),
    Chart("server_latency", "Latency of the last 30 s", ["ms"], [
        Line("p50", "blue", _recent("p50")),
        Line("p95", "green", _recent("p95")),
        Line("p99", "purple", _recent("p99")),
    ], of="server"),
)  # fmt: skip
CHARTS = (
    *_OF_CELL,
    *_OF_SERVER,
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
    Chart("gpu", "GPU", ["%", "MB"], [
        Line("utilisation, %", "blue",
             lambda s: max((100 * g.utilization for g in s.gpus), default=None)),
        Line("memory used, MB", "purple",
             lambda s: sum(g.memory_used_mb for g in s.gpus) if s.gpus else None, right=True),
        Line("model, MB", "green", lambda s: _model_mb(s.metrics), right=True),
    ], needs_device=True),
)  # fmt: skip
