"""Requests in flight and where they are: Little's law on the records of a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossbench.measure.statistics import stage_ms
from crossbench.types import RequestRecord


@dataclass(frozen=True, slots=True)
class Queueing:
    """Means over the time of the measurement.

    By Little's law (J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations
    Research 9, 1961) the mean number of requests in a place is the rate at which they come, in
    requests/s, times the mean time that they spend in it. `in_flight` is that of the whole way,
    `waiting` of the scheduler's queue, `computing` of the model. `waiting_share` is the queue's
    part of the service time (0 to 1). `variation` is the coefficient of variation of the service
    time: 0 is constant, 1 as in an exponential distribution; waiting grows with its square.
    """

    requests_per_s: float
    in_flight: float
    waiting: float
    computing: float
    waiting_share: float
    variation: float


def queueing(records: Sequence[RequestRecord]) -> Queueing | None:
    """What holds of the requests that succeeded; None where none did, or all in no time."""
    good = [record for record in records if record.ok]
    if not good:
        return None
    span_s = max(record.received_s for record in good) - min(record.sent_s for record in good)
    service = np.array([record.service_ms for record in good])
    if span_s <= 0 or service.mean() <= 0:
        return None
    stages = stage_ms(good)
    rate = len(good) / span_s

    def number(times_ms: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return rate * float(times_ms.mean()) / 1e3

    return Queueing(
        requests_per_s=rate,
        in_flight=number(service),
        waiting=number(stages["queue"]),
        computing=number(stages["infer"]),
        waiting_share=float(stages["queue"].mean() / service.mean()),
        variation=float(service.std() / service.mean()),
    )
