"""The dashboard process, which a sweep, a cell or a server starts.

Its only argument is JSON with host, port and journal. It writes one event with its URL to standard
output and ends when its standard input closes. Its imports cost a second of CPU time, so the parent
waits for that event before it measures anything. After that the process handles one message per
second, at low priority.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from crossbench.dashboard.board import Board
from crossbench.dashboard.web import listen, serve, url_of
from crossbench.errors import ConfigError
from crossbench.events import DashboardListens, DashboardRefused, encode

FINAL_REFRESH_S = 4.0  # so that open pages, which update every two seconds, show how it ended


def main(settings: dict[str, str]) -> None:
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries goes to the log
    board = Board(address=None)

    def send(event: DashboardListens | DashboardRefused) -> None:
        pipe.write(encode(event, time.time()))
        pipe.flush()

    try:
        listener = listen(settings["host"], int(settings["port"]))
    except ConfigError as error:
        send(DashboardRefused(str(error)))
        return
    url, wanted = url_of(listener), int(settings["port"])
    moved = wanted not in (0, listener.getsockname()[1])
    note = f"port {wanted} is taken" if moved else ""

    def end_with_parent() -> None:
        while os.read(0, 4096):
            pass
        if board.open_pages:
            time.sleep(FINAL_REFRESH_S)
        os._exit(0)

    threading.Thread(target=end_with_parent, name="parent-watch", daemon=True).start()
    ready = DashboardListens(url, note)
    serve(listener, board, Path(settings["journal"]), lambda: send(ready))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
