"""The dashboard's process, as a sweep, a cell or a server starts it.

Its one argument is JSON: host, port, journal. It says where it listens in one event and ends when
its standard input closes. Its imports cost a second of CPU, which is why whoever starts it
waits for that line before anything is measured. From then on it takes in one message a second, and
gives way to whatever else wants the CPU.
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

LAST_WORDS_S = 4.0  # for open pages, which look every other second, to show how it ended


def main(settings: dict[str, str]) -> None:
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to the log
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
        if board.pages:
            time.sleep(LAST_WORDS_S)
        os._exit(0)

    threading.Thread(target=end_with_parent, name="parent-watch", daemon=True).start()
    ready = DashboardListens(url, note)
    serve(listener, board, Path(settings["journal"]), lambda: send(ready))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
