"""Whether a server has become steady: a trend test on the first replies.

The test is Mann and Kendall's (Mann, Nonparametric tests against trend, Econometrica 13, 1945) on
the mean service times of short windows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from crossbench.types import RequestRecord

WINDOW_S = 0.1
MIN_WINDOWS = 10  # windows with a reply that the test needs
# Standard deviations by which the order of the windows may deviate from a random one. This is less
# than usual in a test: a trend that is missed costs more than a longer warm-up.
MAX_DEVIATION = 1.0


def trend(values: NDArray[np.float64]) -> float:
    """Return Mann and Kendall's statistic z of at least two values, shape (n,).

    It is the number of later values that are larger than an earlier one, less those that are
    smaller, in standard deviations of a random order: negative for a falling trend.
    """
    n = len(values)
    signs = float(np.sign(np.subtract.outer(values, values))[np.tril_indices(n, -1)].sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return float(signs - np.sign(signs)) / deviation


class Steadiness:
    """Watches the replies of a warm-up.

    It is steady once there is no trend in the last third of the windows, at least ten of them. A
    window is at least 0.1 s long and has at least one reply.
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
        last = np.asarray(self._windows_s[-max(MIN_WINDOWS, self.windows // 3) :])
        return abs(trend(last)) < MAX_DEVIATION

    def add(self, record: RequestRecord) -> None:
        """Add a reply, in the order of the replies. Failed requests do not count."""
        if not record.ok:
            return
        self._open_s.append(record.received_s - record.sent_s)
        if record.received_s - self._start_s >= WINDOW_S:
            self._windows_s.append(sum(self._open_s) / len(self._open_s))
            self._open_s.clear()
            self._start_s = record.received_s
