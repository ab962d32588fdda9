"""The dashboard process, which a sweep, a cell or a server starts.

The first line of its standard input is JSON with its settings, as other users see arguments. It
writes one event with its URL to standard output and ends when its standard input closes. Its
imports cost a second of CPU time, so the parent waits for that event before it measures anything.
After that the process handles one message per second, at low priority.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from crossbench.dashboard.board import Board
from crossbench.dashboard.pages import check_max_pages
from crossbench.dashboard.token import check_token
from crossbench.dashboard.web import listen, notes_of, serve, url_of
from crossbench.errors import ConfigError
from crossbench.events import DashboardListens, DashboardRefused, encode

FINAL_REFRESH_S = 4.0  # so that open pages, which update every two seconds, show how it ended


def main(settings: dict[str, Any]) -> None:
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries goes to the log
    board = Board(address=None)

    def send(event: DashboardListens | DashboardRefused) -> None:
        pipe.write(encode(event, time.time()))
        pipe.flush()

    try:
        check_token(settings["token"])
        check_max_pages(settings["max_pages"])
        listener = listen(settings["host"], settings["port"])
    except ConfigError as error:
        send(DashboardRefused(str(error)))
        return
    token = settings["token"]
    notes = notes_of(listener, settings["port"], token)

    def end_with_parent() -> None:
        while os.read(0, 4096):
            pass
        if board.open_pages:
            time.sleep(FINAL_REFRESH_S)
        if settings["temporary"]:
            shutil.rmtree(journal.parent, ignore_errors=True)
        os._exit(0)

    journal = Path(settings["journal"])
    board.folder = "" if settings["temporary"] else str(journal.parent)
    threading.Thread(target=end_with_parent, name="parent-watch", daemon=True).start()
    ready = DashboardListens(url_of(listener), "; ".join(notes))
    serve(listener, board, journal, lambda: send(ready), token, settings["max_pages"])


def first_line() -> bytes:
    """Read a line of standard input, and nothing after it."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


if __name__ == "__main__":
    if line := first_line():  # else the parent has ended meanwhile
        main(json.loads(line))
