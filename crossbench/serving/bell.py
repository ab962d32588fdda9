"""Wakes a waiting thread."""

from __future__ import annotations

import threading


class Bell:
    """Wakes the one thread that waits for it, or the next time that it waits.

    A lock is its own queue of waiters in the operating system, and much cheaper to wait for than a
    threading.Condition, which creates a lock for each wait.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the waiting thread. Only one thread at a time may call this."""
        if self._silent.locked():  # otherwise it rings already
            self._silent.release()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it rings and return True, or False after `timeout_s` (None: wait for ever)."""
        return self._silent.acquire(timeout=-1 if timeout_s is None else timeout_s)
