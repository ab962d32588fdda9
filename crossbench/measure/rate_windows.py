"""Throughput in short windows, from which the interval of its mean follows.

The windows of the plots (`statistics.windows`) are a second or longer. These are shorter, since an
interval needs at least a dozen of them, and they grow with each reply, so that a look at them while
a cell runs costs little.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.intervals import half_width, mean_interval
from crossbench.measure.metric import Metric
from crossbench.types import RequestRecord

_STEP_S = 0.05  # windows are made of whole steps
MIN_WINDOW_S = 0.2
WINDOW_TIMES = 2  # a window is at least this many median times in the model long
_RECENT = 100


class RateWindows:
    """The work of one run by time. A request's pairs are spread evenly over its time in the model.

    `latencies_ms` are those of the successful requests, in the order of their replies.
    """

    def __init__(self, records: Iterable[RequestRecord] = ()) -> None:
        self.latencies_ms: list[float] = []
        self._first_send_s, self._last_send_s = math.inf, 0.0
        self._model_s: list[float] = []
        self._recent_s: deque[float] = deque(maxlen=_RECENT)
        self._work: list[float] = []  # pairs per step
        for record in records:
            self.add(record)

    def add(self, record: RequestRecord) -> None:
        """Add a reply."""
        self._first_send_s = min(self._first_send_s, record.sent_s)
        self._last_send_s = max(self._last_send_s, record.sent_s)
        if not record.ok:
            return
        end_s = record.received_s
        begin_s = record.sent_s
        if record.has_stages:
            begin_s = max(end_s - record.infer_ms / 1e3, begin_s)
        self.latencies_ms.append(record.latency_ms)
        self._model_s.append(end_s - begin_s)
        self._recent_s.append(end_s - record.sent_s)
        first, last = int(begin_s / _STEP_S), int(end_s / _STEP_S)
        self._work.extend([0.0] * (last + 1 - len(self._work)))
        if first == last:
            self._work[last] += record.pairs
            return
        pairs_per_s = record.pairs / (end_s - begin_s)
        self._work[first] += pairs_per_s * ((first + 1) * _STEP_S - begin_s)
        for step in range(first + 1, last):
            self._work[step] += pairs_per_s * _STEP_S
        self._work[last] += pairs_per_s * (end_s - last * _STEP_S)

    def longest_recent_s(self) -> float:
        """Return the longest service time of the last hundred successful requests."""
        return max(self._recent_s, default=0.0)

    def rates(self, until_s: float | None = None) -> NDArray[np.float64]:
        """Return pairs/s in each window between the first send and `until_s`, of shape (n,).

        `until_s` is at most the last send, which is also the default: after it, the load is no
        longer complete. The remainder of a window is left out.
        """
        if not self._model_s:
            return np.empty(0)
        until_s = self._last_send_s if until_s is None else min(until_s, self._last_send_s)
        length_s = max(MIN_WINDOW_S, WINDOW_TIMES * float(np.median(self._model_s)))
        steps = math.ceil(length_s / _STEP_S - 1e-9)
        first, last = math.ceil(self._first_send_s / _STEP_S), int(until_s / _STEP_S)
        count = max(0, min(last, len(self._work)) - first) // steps
        work = np.asarray(self._work[first : first + count * steps], dtype=np.float64)
        rates: NDArray[np.float64] = work.reshape(count, steps).sum(axis=1) / (steps * _STEP_S)
        return rates


def throughput_interval(
    records: Iterable[RequestRecord], rate: Metric, metrics: Mapping[str, float]
) -> dict[str, float]:
    """Return the ends of the 95 % interval of a run's throughput `rate`, as metrics.

    Its relative width is that of the mean over the windows. Empty for too few windows.
    """
    value = metrics.get(rate.name)
    half = half_width(mean_interval(RateWindows(records).rates()))
    if value is None or half is None:
        return {}
    return {rate.low: value * (1 - half), rate.high: value * (1 + half)}
