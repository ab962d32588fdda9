"""Mean numbers of requests in flight, waiting and computing, by Little's law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossbench.measure.statistics import stage_ms
from crossbench.types import RequestRecord


@dataclass(frozen=True, slots=True)
class Queueing:
    """Means over the measurement.

    By Little's law (J. D. C. Little, "A proof for the queuing formula L = lambda W", Operations
    Research 9, 1961) the mean number of requests in a stage is the rate in requests/s times the
    mean time that they spend in it. `in_flight` is the number in the whole system, `waiting` in the
    scheduler's queue, and `computing` in the model. `waiting_share` is the queue's share of the
    service time (0 to 1). `variation` is the coefficient of variation of the service time: 0 if it
    is constant, 1 for an exponential distribution. Waiting time grows with its square.
    """

    requests_per_s: float
    in_flight: float
    waiting: float
    computing: float
    waiting_share: float
    variation: float


def queueing(records: Sequence[RequestRecord]) -> Queueing | None:
    """Return the means over successful requests.

    None if there are none, if they took no time, or if the server does not tell its stages.
    """
    good = [record for record in records if record.ok]
    if not good:
        return None
    span_s = max(record.received_s for record in good) - min(record.sent_s for record in good)
    service = np.array([record.service_ms for record in good])
    if span_s <= 0 or service.mean() <= 0:
        return None
    stages = stage_ms(good)
    if not stages:
        return None
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
