"""Which workers of a pool can serve, and what the pool does while none can."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from crossbench.serving.worker import Queue

log = logging.getLogger(__name__)


class Availability:
    """Knows which of the workers can serve. Safe to use from any thread.

    `changed` is called when `serving` has changed. While no worker can serve, requests wait, until
    each worker has failed to be replaced: then they are refused.
    """

    def __init__(self, queue: Queue, workers: int) -> None:
        self.serving = True
        self.changed: Callable[[], None] = _nothing
        self._queue = queue
        self._lock = threading.Lock()
        self._available = [True] * workers
        self._reasons = [""] * workers  # why the latest replacement failed

    def set(self, number: int, available: bool, reason: str = "") -> None:
        """Record whether worker `number` can serve, or for which reason it was not replaced."""
        with self._lock:
            if available:
                self._queue.resume(number)
            else:
                self._queue.suspend(number)
            self._available[number] = available
            self._reasons[number] = "" if available else reason or self._reasons[number]
            serving = any(self._available)
            if serving or not all(self._reasons):
                self._queue.refuse("")
            else:
                self._queue.refuse(
                    f"no worker can serve ({self._reasons[number]}): send the request again later"
                )
            if serving == self.serving:
                return
            self.serving = serving
        log.warning("%s worker can serve", "a" if serving else "no")
        self.changed()


def _nothing() -> None:
    """Do nothing."""
