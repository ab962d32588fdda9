"""How long work takes, predicted from the latest work of the same kind."""

from __future__ import annotations

from collections import deque

LATEST = 15  # pieces of work


class Speed:
    """The mean time per unit of work (a token, or a character). Not safe for several threads."""

    def __init__(self) -> None:
        self._latest: deque[tuple[int, float]] = deque(maxlen=LATEST)
        self._units = 0
        self._seconds = 0.0

    def add(self, units: int, seconds: float) -> None:
        """Learn that `units` took `seconds`."""
        if len(self._latest) == LATEST:
            old_units, old_seconds = self._latest[0]
            self._units -= old_units
            self._seconds -= old_seconds
        self._latest.append((units, seconds))
        self._units += units
        self._seconds += seconds

    def seconds(self, units: float) -> float:
        """Return how long `units` take; 0 if nothing has been learnt yet."""
        return units * max(self._seconds, 0.0) / self._units if self._units else 0.0
