"""A clock that stops while its process is stopped, and a check at each of its ticks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

DELAY_S = 1.0  # a tick that comes later than this counts as on time


class Watch:
    """Calls `check` every `tick_s` seconds in a thread of its own.

    `now_s` costs nothing to read and is as precise as a tick. It excludes the time in which nothing
    could run here, because the process was stopped (Ctrl-Z) or the machine asleep: without this,
    every call in progress would look like one that hangs.
    """

    def __init__(self, tick_s: float, check: Callable[[], None]) -> None:
        self.now_s = 0.0
        self._tick_s = tick_s
        self._check = check
        self._stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        last_s = time.perf_counter()
        while not self._stopping.wait(self._tick_s):
            now_s = time.perf_counter()
            self.now_s += min(now_s - last_s, self._tick_s + DELAY_S)
            last_s = now_s
            try:
                self._check()
            except Exception:
                log.exception("the watch over the workers failed; it goes on")
