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
from crossbench.events import Event


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
