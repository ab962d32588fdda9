"""The state behind the dashboard: it takes in events and metrics and provides the figures to show.

It imports no web framework and reads no clock: all times are passed in.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from enum import StrEnum
from statistics import median
from typing import assert_never

from crossbench.dashboard.cell_row import CellRow, unit_of
from crossbench.dashboard.figures import ClientWindow, GpuUse
from crossbench.dashboard.server_side import HISTORY, ServerSide
from crossbench.events import (
    CellEnded,
    CellStarted,
    DashboardListens,
    DashboardRefused,
    FileKept,
    FlagsChanged,
    MeasuredSoFar,
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


class SweepState(StrEnum):
    """How a sweep stands."""

    RUNNING = "running"
    COMPLETE = "complete"  # every cell has ended
    INTERRUPTED = "interrupted"  # by a stop signal
    INCOMPLETE = "incomplete"  # it ended before every cell had, for example because it was killed


class Board:
    """The state of one dashboard."""

    def __init__(self, address: str | None, access: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.access = access or {}  # how to get into the server, see `ServerListens`
        self.open_pages = 0
        self.is_stored = False  # of a sweep that ended before this process started
        self.is_connected = False
        self.lost = False  # a server is expected but does not answer
        self.folder = ""  # of the run, if its files stay
        self.sweep = ""
        self.cells_planned = 0
        self.cells: dict[int, CellRow] = {}
        self.current: int | None = None  # the cell that is running
        self.ended = ""
        self.ended_s: float | None = None  # Unix
        self.interrupted = False
        self.server = ServerSide()
        self.window: ClientWindow | None = None  # the last one of the running cell
        self.client_failed: Counter[str] = Counter()
        self.windows: deque[ClientWindow] = deque(maxlen=HISTORY)
        # Unix times and numbers of cells, counted from 1
        self.cell_starts: deque[tuple[float, int]] = deque(maxlen=HISTORY)
        self._server_cell: int | None = None  # the cell whose server is at `address`
        self._server_settings: Mapping[str, str] = {}  # of a server without a cell

    # Input

    def apply(self, recorded: Recorded) -> None:
        """Apply one event of the journal.

        Events of a cell are ignored if the line with its start was lost.
        """
        event, time_s, cell = recorded.event, recorded.time_s, recorded.cell
        row = None if cell is None else self.cells.get(cell)
        match event:
            case SweepStarted():
                self._start_sweep(event)
            case CellStarted() if cell is not None:
                self._start_cell(cell, event, time_s)
            case CellEnded() if row is not None:
                self._end_cell(row, event, time_s)
            case ServerConfigured():
                self._server_settings = event.config
            case StageStarted() if row is not None:
                row.stage, row.flags = event.stage, {}
            case ServerListens():
                self.address, self.lost, self.access = event.address, False, event.access
                self._server_cell = cell
            case ServerStops():
                self.address, self.lost = None, False
            case ProgressMade() if row is not None:
                row.progress = event
            case MeasuredSoFar() if row is not None:
                row.figures |= event.metrics
            case WindowMeasured() if row is not None:
                self._add_window(row, event, time_s)
            case FlagsChanged() if row is not None:
                row.flags = event.flags
            case RunEnded():
                self.ended, self.ended_s, self.address = event.message, time_s, None
                self.interrupted = self.interrupted or event.interrupted
                self.current = None
                for unfinished in filter(lambda row: row.is_running, self.cells.values()):
                    unfinished.interrupted, unfinished.ended_s = True, time_s
            case (
                CellStarted() | CellEnded() | StageStarted() | ProgressMade() | MeasuredSoFar()
                | WindowMeasured() | FlagsChanged() | FileKept() | DashboardListens()
                | DashboardRefused()
            ):  # fmt: skip
                pass
            case _:
                assert_never(event)

    def _start_sweep(self, event: SweepStarted) -> None:
        """Begin a sweep, or go on with one; the latter measures again what has not ended."""
        self.sweep, self.cells_planned = event.name, event.cells
        self.ended, self.ended_s, self.interrupted = "", None, False
        self.cells = {
            number: row
            for number, row in self.cells.items()
            if not row.is_running and not row.interrupted
        }

    def _start_cell(self, number: int, event: CellStarted, time_s: float) -> None:
        self.cells[number] = CellRow(number, event.label, event.config, time_s, event.machine)
        self.cells_planned = max(self.cells_planned, number + 1)
        self.current = number
        self.address, self.server.last, self.window = None, None, None
        self.client_failed.clear()
        self.cell_starts.append((time_s, number + 1))

    def _end_cell(self, row: CellRow, event: CellEnded, time_s: float) -> None:
        row.status, row.error, row.interrupted = event.status, event.error, event.interrupted
        row.figures, row.ended_s, row.flags = dict(event.metrics), time_s, {}
        self.interrupted = self.interrupted or event.interrupted
        if self._server_cell == row.number:
            self.address = None
        if self.current == row.number:  # with another launcher, cells may overlap
            running = [other.number for other in self.cells.values() if other.is_running]
            self.current = running[-1] if running else None

    def _add_window(self, row: CellRow, event: WindowMeasured, time_s: float) -> None:
        if row.number != self.current:
            return
        self.client_failed.update(event.failed)
        self.window = ClientWindow(
            time_s=time_s,
            requests=event.requests,
            pairs_per_s=event.pairs_per_s,
            p50_ms=event.p50_ms,
            p95_ms=event.p95_ms,
            p99_ms=event.p99_ms,
            so_far_per_s=row.figures.get(row.rate.name),
        )
        self.windows.append(self.window)

    def connected(self, info: pb.ServerInfo) -> None:
        """Note that the server at `address` answers."""
        self.server.connected(info)
        self.is_connected, self.lost = True, False
        if self.served is not None:
            self.served.facts = self.server.facts

    def disconnected(self, lost: bool) -> None:
        self.is_connected, self.lost = False, lost

    def sample(self, metrics: pb.Metrics, gpus: tuple[GpuUse, ...], time_s: float) -> None:
        """Add one metrics message of the server; there is one per second."""
        self.server.sample(metrics, gpus, time_s)
        if self.served is not None:
            self.served.take_server_figures(metrics, self.server.cpu_at_restart_s)

    def reset(self) -> None:
        """Reset the counters and charts of this board only; the server continues to count."""
        self.server.reset()
        self.windows.clear()
        self.cell_starts.clear()
        self.client_failed.clear()

    # Output

    @property
    def served(self) -> CellRow | None:
        """The running cell whose server is at `address`."""
        row = None if self._server_cell is None else self.cells.get(self._server_cell)
        return row if row is not None and row.is_running and self.address is not None else None

    @property
    def shown(self) -> CellRow | None:
        """The running cell, or else the one that was started last and has figures, if any has."""
        if self.current is not None:
            return self.cells[self.current]
        newest_first = sorted(self.cells.values(), key=lambda row: row.started_s, reverse=True)
        measured = (row for row in newest_first if row.figures)
        return next(measured, newest_first[0] if newest_first else None)

    @property
    def settings(self) -> Mapping[str, str]:
        """The configuration of the shown cell, or of a server without a cell."""
        return self.shown.settings if self.shown else self._server_settings

    @property
    def unit(self) -> str:
        """The unit of work of the shown cell or of the server: `pairs` or `texts`."""
        return unit_of(self.settings)

    @property
    def is_measuring(self) -> bool:
        """Whether a cell is running, whose measurement a reset of its server would change."""
        return self.current is not None

    @property
    def status(self) -> str:
        """`ended`, `disconnected`, `waiting`, `connected`, or the stage of the running cell."""
        if self.ended:
            return "ended"
        if self.lost:
            return "disconnected"
        if self.current is not None:
            return self.cells[self.current].stage
        if self.is_connected and self.address is not None:
            return "connected"
        return "waiting"

    @property
    def rows(self) -> list[CellRow]:
        """The cells by their numbers."""
        return sorted(self.cells.values(), key=lambda row: row.number)

    @property
    def done(self) -> list[CellRow]:
        """The cells that have ended; one that was interrupted has not."""
        return [row for row in self.rows if not row.is_running and not row.interrupted]

    @property
    def sweep_state(self) -> SweepState:
        if self.interrupted:
            return SweepState.INTERRUPTED
        if len(self.done) >= self.cells_planned:
            return SweepState.COMPLETE
        return SweepState.INCOMPLETE if self.ended else SweepState.RUNNING

    def cell_share(self) -> float:
        """The completed share of the running cell's measurement, 0 to 1."""
        return 0.0 if self.current is None else self.cells[self.current].share

    def time_left_s(self, time_s: float) -> float | None:
        """Estimated seconds until the sweep ends, from the median duration of its cells so far.

        None before the first cell has ended.
        """
        took_s = [row.ended_s - row.started_s for row in self.done if row.ended_s is not None]
        if not took_s or not self.cells_planned:
            return None
        each_s = median(took_s)
        running = [row for row in self.cells.values() if row.is_running]
        left_s = each_s * (self.cells_planned - len(took_s))
        left_s -= sum(min(each_s, time_s - row.started_s) for row in running)
        return max(0.0, left_s / max(1, len(running)))  # machines of a cluster work side by side
