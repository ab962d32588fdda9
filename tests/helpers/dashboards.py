"""A dashboard process of its own, for tests and benchmarks that strain it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from crossbench.dashboard.journal import FileJournal
from crossbench.dashboard.process import JOURNAL_FILE, LOG_FILE, WebDashboard
from crossbench.events import (
    MEASURING,
    CellEnded,
    CellStarted,
    Event,
    MeasuredSoFar,
    ProgressMade,
    StageStarted,
    SweepStarted,
    WindowMeasured,
)
from crossbench.measure import catalogue
from crossbench.measure.catalogue import PAIRS_PER_S


@dataclass(frozen=True)
class RunningDashboard:
    """Its URL, its process, and where its log is."""

    url: str
    process: psutil.Process
    note: str
    log: Path

    @property
    def port(self) -> int:
        port = httpx.URL(self.url).port
        assert port is not None
        return port

    @property
    def socket_url(self) -> str:
        """The URL of NiceGUI's web socket."""
        path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        return f"ws://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def running_dashboard(
    folder: Path, token: str | None = None, max_pages: int = 16, events: Sequence[Event] = ()
) -> Iterator[RunningDashboard]:
    """Start a dashboard with its journal, of `events` of cell 0, in `folder`."""
    journal = FileJournal(folder / JOURNAL_FILE, 0)
    for event in events:
        journal.write(event)
    before = set(psutil.Process().children())
    web = WebDashboard("web", "127.0.0.1", 0, False, token, max_pages)
    web.start(folder / JOURNAL_FILE)
    url = web.ready()
    assert url is not None
    (process,) = set(psutil.Process().children()) - before
    try:
        yield RunningDashboard(url, process, web.note, folder / LOG_FILE)
    finally:
        web.close()


@dataclass(frozen=True)
class SweepJournal:
    """Writes the journal of a sweep whose cells take five seconds each, the last one until now.

    Cell `instant` has no precision that its backend supports, and ends at once.
    """

    path: Path
    cells: int
    instant: int | None = None

    def write(self, started: int, now_s: float) -> None:
        """Write that so many cells have started; the last of them is being measured."""
        FileJournal(self.path).write(SweepStarted("a sweep", self.cells), now_s)
        time_s = now_s - 6.0 * started
        for number in range(started):
            journal = FileJournal(self.path, number)
            journal.write(CellStarted(self.label(number), self.config(number)), time_s)
            if number == self.instant:
                why = "the backend does not support int4: set quant= to one of fp32, bf16, int8"
                journal.write(CellEnded("unsupported", why, False, {}), time_s + 0.5)
                continue
            journal.write(StageStarted(MEASURING), time_s)
            for second in range(1, 6):
                so_far = {**figures(number), PAIRS_PER_S.name: 90.0 + second}
                journal.write(MeasuredSoFar(so_far), time_s + second)
                window = WindowMeasured(20, {}, 100.0 + 9 * second, 8.0 + number, 9.0, 12.0)
                journal.write(window, time_s + second)
            if number < started - 1:
                time_s += 6.0
                journal.write(CellEnded("finished", None, False, figures(number)), time_s)
        journal.write(ProgressMade(50, 0.4, 95.0, 8.0), now_s)

    def label(self, number: int) -> str:
        return f"batch={number + 1} scheduler=length_aware load.rate=2.5"

    def config(self, number: int) -> dict[str, str]:
        config = {"model": "a-model", "backend": "onnx", "quant": "fp32", "batch": str(number + 1)}
        return {**config, "load.task": "score"}


def figures(number: int) -> dict[str, float]:
    """The metrics of a finished cell of `SweepJournal`."""
    return {
        PAIRS_PER_S.name: 1000.5 + 100 * number,
        PAIRS_PER_S.low: 990.0,
        PAIRS_PER_S.high: 1010.0,
        **{catalogue.latency(level).name: level + number + 0.25 for level in (50, 95, 99)},
        catalogue.RSS_PEAK_MB.name: 300.0 + number,
        catalogue.REQUESTS_OK.name: 1234.0,
        catalogue.REQUESTS_FAILED.name: 1.0,
    }
