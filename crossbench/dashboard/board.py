"""The state behind the dashboard: it takes in events and metrics and provides the figures to show.

It imports no web framework and reads no clock: all times are passed in.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from crossbench.dashboard.figures import ClientWindow, Counters, GpuUse, Sample
from crossbench.events import (
    CellEnded,
    CellStarted,
    DashboardListens,
    DashboardRefused,
    FileKept,
    FlagsChanged,
    ProgressMade,
    Recorded,
    RunEnded,
    ServerConfigured,
    ServerListens,
    ServerStops,
    StageStarted,
    SweepStarted,
    WindowMeasured,
)
from crossbench.serving import inference_pb2 as pb
from crossbench.types import Task

HISTORY = 180  # samples, one per second
RATE_WINDOW_S = 5.0


@dataclass(slots=True)
class CellRow:
    """One cell of the sweep; `figures` are the result's metrics by their contract names."""

    number: int
    label: str
    status: str
    started_s: float
    ended_s: float | None
    figures: Mapping[str, float]
    error: str | None


class Board:
    """The state of one dashboard."""

    def __init__(self, address: str | None, access: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.access = access or {}  # how to get into the server, see `ServerListens`
        self.info: pb.ServerInfo | None = None
        self.open_pages = 0
        self.is_connected = False
        self.lost = False  # a server is expected but does not answer
        self.sweep = ""
        self.cells_planned = 0
        self.cells: dict[int, CellRow] = {}
        self.current: int | None = None
        self.stage = ""
        self.ended = ""
        self.settings: Mapping[str, str] = {}
        self.progress: ProgressMade | None = None
        self.flags: Mapping[str, str] = {}  # of the last seconds of the running cell
        self.client_failed: Counter[str] = Counter()
        self.samples: deque[Sample] = deque(maxlen=HISTORY)
        self.windows: deque[ClientWindow] = deque(maxlen=HISTORY)
        self.cell_starts: deque[tuple[float, str]] = deque(maxlen=HISTORY)  # Unix time and name
        self._counters_at_reset = Counters.zero()
        self._failed_at_reset: Counter[str] = Counter()
        self._reset_s = 0.0

    # Input

    def apply(self, recorded: Recorded) -> None:
        """Apply one event of the journal.

        The end of a cell is ignored if the line with its start was lost.
        """
        event, time_s, cell = recorded.event, recorded.time_s, recorded.cell
        match event:
            case SweepStarted():
                self.sweep, self.cells_planned, self.ended = event.name, event.cells, ""
            case CellStarted() if cell is not None:
                self._start_cell(cell, event, time_s)
            case CellEnded() if cell is not None and cell in self.cells:
                self._end_cell(self.cells[cell], event, time_s)
            case ServerConfigured():
                self.settings = event.config
            case StageStarted():
                self.stage, self.flags = event.stage, {}
            case ServerListens():
                self.address, self.lost, self.access = event.address, False, event.access
            case ServerStops():
                self.address, self.lost = None, False
            case ProgressMade():
                self.progress = event
            case WindowMeasured():
                self._add_window(event, time_s)
            case FlagsChanged():
                self.flags = event.flags
            case RunEnded():
                self.ended, self.address = event.message, None
            case CellStarted() | CellEnded() | FileKept() | DashboardListens() | DashboardRefused():
                pass
            case _:
                assert_never(event)

    def _start_cell(self, number: int, event: CellStarted, time_s: float) -> None:
        self.cells[number] = CellRow(number, event.label, "running", time_s, None, {}, None)
        self.cells_planned = max(self.cells_planned, number + 1)
        self.current, self.stage, self.address = number, "starting", None
        self.settings = event.config
        self.progress, self.flags = None, {}
        self.client_failed.clear()
        self.cell_starts.append((time_s, f"cell {number + 1}"))

    def _end_cell(self, row: CellRow, event: CellEnded, time_s: float) -> None:
        row.status, row.error = event.status, event.error
        row.figures, row.ended_s = event.metrics, time_s
        if self.current == row.number:
            self.current, self.stage, self.address, self.flags = None, "", None, {}

    def _add_window(self, event: WindowMeasured, time_s: float) -> None:
        self.client_failed.update(event.failed)
        self.windows.append(
            ClientWindow(
                time_s=time_s,
                requests=event.requests,
                pairs_per_s=event.pairs_per_s,
                p50_ms=event.p50_ms,
                p95_ms=event.p95_ms,
                p99_ms=event.p99_ms,
            )
        )

    def connected(self, info: pb.ServerInfo) -> None:
        self.info, self.is_connected, self.lost = info, True, False
        self._counters_at_reset, self._failed_at_reset = Counters.zero(), Counter()

    def disconnected(self, lost: bool) -> None:
        self.is_connected, self.lost = False, lost

    def sample(self, metrics: pb.Metrics, gpus: tuple[GpuUse, ...], time_s: float) -> None:
        """Add one metrics message of the server; there is one per second."""
        counters = Counters.of(metrics)
        last = self.samples[-1].metrics if self.samples else None
        restarted = last is None or metrics.since_reset_s < last.since_reset_s
        interval = counters if restarted or last is None else counters - Counters.of(last)
        if restarted:  # another server, or its counters were reset
            self._counters_at_reset, self._failed_at_reset = Counters.zero(), Counter()
            self._reset_s = 0.0
        speed = self._pairs_per_s(metrics)
        cores = metrics.cpu_cores if metrics.since_reset_s > 1.0 else None
        self.samples.append(Sample(time_s, metrics, interval, speed, cores, gpus))

    def _pairs_per_s(self, now: pb.Metrics) -> float | None:
        """Throughput over the last seconds, back to the last restart of the counters at most."""
        before = now
        for sample in reversed(self.samples):
            elapsed_s = now.since_reset_s - sample.metrics.since_reset_s
            if not 0 < elapsed_s <= RATE_WINDOW_S + 0.5:
                break
            before = sample.metrics
        elapsed_s = now.since_reset_s - before.since_reset_s
        return (now.pairs - before.pairs) / elapsed_s if elapsed_s else None

    def reset(self) -> None:
        """Reset the counters and charts of this board only; the server continues to count."""
        if self.samples:
            last = self.samples[-1]
            self._counters_at_reset = Counters.of(last.metrics)
            self._failed_at_reset = Counter(dict(last.metrics.requests_failed))
            self._reset_s = last.metrics.since_reset_s
            self.samples.clear()
            # The next interval starts here
            self.samples.append(dataclasses.replace(last, interval=Counters.zero()))
        self.windows.clear()
        self.cell_starts.clear()
        self.client_failed.clear()

    # Output

    @property
    def unit(self) -> str:
        """The unit of work: `texts` if the running cell embeds, else `pairs`."""
        embeds = self.settings.get("load.task") == Task.EMBED
        return (Task.EMBED if embeds else Task.SCORE).unit

    @property
    def is_measuring(self) -> bool:
        """Whether a cell is running, whose measurement a reset of its server would change."""
        return self.current is not None

    @property
    def last(self) -> Sample | None:
        return self.samples[-1] if self.samples else None

    @property
    def has_device(self) -> bool:
        """Whether there is a GPU, or device memory that the server reports (mps, mlx)."""
        last = self.last
        return last is not None and bool(last.gpus or last.metrics.HasField("device_memory_mb"))

    @property
    def totals(self) -> Counters:
        """The server's counters since the last reset."""
        return (
            Counters.of(self.last.metrics) - self._counters_at_reset
            if self.last
            else Counters.zero()
        )

    @property
    def failed(self) -> dict[str, int]:
        """Failed requests by gRPC status since the last reset, as counted by the server."""
        if self.last is None:
            return {}
        counted = Counter(dict(self.last.metrics.requests_failed))
        return dict(counted - self._failed_at_reset)

    @property
    def since_reset_s(self) -> float:
        return self.last.metrics.since_reset_s - self._reset_s if self.last else 0.0

    @property
    def status(self) -> str:
        """`ended`, `disconnected`, `waiting`, `connected`, or the stage of the running cell."""
        if self.ended:
            return "ended"
        if self.lost:
            return "disconnected"
        if self.current is not None:
            return self.stage
        if self.is_connected:
            return "connected"
        return "waiting"

    @property
    def done(self) -> list[CellRow]:
        return [row for row in self.cells.values() if row.ended_s is not None]

    def cell_share(self) -> float:
        """The completed share of the running cell's measurement, 0 to 1."""
        return self.progress.share if self.progress else 0.0

    def time_left_s(self, time_s: float) -> float | None:
        """Estimated seconds until the sweep ends, from the mean duration of its cells so far.

        None before the first cell has ended.
        """
        took_s = [row.ended_s - row.started_s for row in self.done if row.ended_s is not None]
        if not took_s or not self.cells_planned:
            return None
        each_s = sum(took_s) / len(took_s)
        left_s = each_s * (self.cells_planned - len(took_s))
        if self.current is not None:
            left_s -= min(each_s, time_s - self.cells[self.current].started_s)
        return max(0.0, left_s)
