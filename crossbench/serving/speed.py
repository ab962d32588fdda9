"""How long work takes, predicted from the latest work of the same kind."""

from __future__ import annotations

from collections import deque
from statistics import median

LATEST = 15  # pieces of work; the median of their speeds ignores single slow ones


class Speed:
    """The typical time per unit of work (a token, or a character). Not safe for several threads."""

    def __init__(self) -> None:
        self._s_per_unit: deque[float] = deque(maxlen=LATEST)
        self._typical_s: float | None = None

    def add(self, units: int, seconds: float) -> None:
        """Learn that `units` took `seconds`."""
        if units:
            self._s_per_unit.append(seconds / units)
            self._typical_s = median(self._s_per_unit)

    def seconds(self, units: float) -> float:
        """Return how long `units` take; 0 if nothing has been learnt yet."""
        return units * (self._typical_s or 0.0)
