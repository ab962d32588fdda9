"""Lets the callers of one worker compute side by side, or one of them alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Gate:
    """A lock with many holders: `shared` ones at the same time, or a single one `alone`."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Wait until nobody is alone inside, and enter."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def alone(self, patience_s: float) -> Iterator[None]:
        """Keep the others out, wait until those inside have left, and enter.

        Those that are still inside after `patience_s` hang and count no more.
        """
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True
            self._changed.wait_for(lambda: not self._inside, patience_s)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
