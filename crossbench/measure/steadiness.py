"""Whether a server has become steady: a trend test on its first replies.

The test is MSER (White, An effective truncation heuristic for bias reduction in simulation output,
Simulation 69, 1997) on the mean service times of short windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossbench.types import RequestRecord

WINDOW_S = 0.05
MIN_WINDOWS = 10  # windows with a reply that the test needs


def truncation(values: NDArray[np.float64]) -> int:
    """Return how many of the first values MSER leaves out, at most half of them.

    It is the number for which the standard error of the mean of the rest is smallest.
    """
    n = len(values)
    kept = np.arange(n, 0, -1)[: n // 2 + 1]
    sums = np.cumsum(values[::-1])[::-1][: len(kept)]
    squares = np.cumsum(values[::-1] ** 2)[::-1][: len(kept)]
    return int(np.argmin((squares - sums**2 / kept) / kept**2))


class Steadiness:
    """Watches the replies of a warm-up.

    It is steady once MSER would leave out less than half of the windows: then there is no trend in
    the second half. A window is at least 50 ms long and has at least one reply.
    """

    def __init__(self) -> None:
        self._windows_s: list[float] = []
        self._start_s = 0.0
        self._open_s: list[float] = []

    @property
    def windows(self) -> int:
        return len(self._windows_s)

    @property
    def steady(self) -> bool | None:
        """Return whether there is no trend; None if there are too few windows to test."""
        if self.windows < MIN_WINDOWS:
            return None
        values = np.asarray(self._windows_s)
        # The mean is subtracted first, since squares of large values would be rounded
        return truncation(values - values.mean()) < len(values) // 2

    def add(self, record: RequestRecord) -> None:
        """Add a reply, in the order of the replies. Failed requests do not count."""
        if not record.ok:
            return
        self._open_s.append(record.received_s - record.sent_s)
        if record.received_s - self._start_s >= WINDOW_S:
            self._windows_s.append(sum(self._open_s) / len(self._open_s))
            self._open_s.clear()
            self._start_s = record.received_s
