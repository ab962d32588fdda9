"""Whether an open loop asks for more than the server can do, recognised while it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import grpc

from crossbench.types import RequestRecord
from crossbench.wording import percent

MIN_REQUESTS = 20  # before which nothing is said
GROWTH = 0.1  # of the second half's requests, by which the backlog must have grown in it
# Deviations of the number of arrivals by which the backlog must exceed an empty queue. While a run
# lasts, each request is another chance to be wrong; at its end there is only one.
DEVIATIONS, DEVIATIONS_AT_END = 3.5, 2.5
STEADY = 0.5  # of the mean, which the growth and the replies of each quarter must reach
REJECTED = grpc.StatusCode.RESOURCE_EXHAUSTED.name  # the server's queue is full
MAX_REJECTED = 0.05  # share of an open loop's requests; above it the load is more than capacity


@dataclass
class SaturationWatch:
    """Watches the backlog of an open loop: the requests that are due and not yet answered.

    `variation` is the coefficient of variation of the times between requests. Above capacity the
    backlog grows steadily while the server answers steadily. The loop counts as over-saturated
    once, over the requests so far,

    1. the backlog at the end of each quarter is larger than at the end of the quarter before, and
       at least half of what it would be if it had grown at a constant speed,
    2. in the second half it has grown by at least a tenth of that half's requests,
    3. it is at least 3.5 times (at the end of the run: 2.5 times) `variation` (at least 1) times
       the square root of the number of requests that were due, which bursts seldom reach, and
    4. each quarter but the first had at least half of its share of the replies: a server that
       stalls for a while is not over-saturated.

    `python -m benchmarks.statistics` prints how often that is right.
    """

    variation: float
    _seen: list[tuple[int, int]] = field(default_factory=list, init=False)  # due, answered

    def is_over_saturated(self, due: int, answered: int) -> bool:
        """Note, just before a request is sent, how many were due so far, and how many answered."""
        self._seen.append((due, answered))
        return self._grows(DEVIATIONS)

    def was_over_saturated(self) -> bool:
        """Return whether the backlog grew until the end of the run."""
        return self._grows(DEVIATIONS_AT_END)

    def _grows(self, deviations: float) -> bool:
        if len(self._seen) < MIN_REQUESTS:
            return False
        due = self._seen[-1][0]
        last = len(self._seen) - 1
        at = [self._seen[last * quarter // 4] for quarter in range(5)]
        backlog = [due - answered for due, answered in at]
        replies = [later[1] - before[1] for before, later in pairwise(at)]
        deviation = max(1.0, self.variation) * math.sqrt(due)
        return (
            backlog[1] < backlog[2] < backlog[3] < backlog[4]
            and all(backlog[k] >= STEADY * backlog[4] * k / 4 for k in (1, 2, 3))
            and backlog[4] - backlog[2] >= GROWTH * (due - at[2][0])
            and backlog[4] >= deviations * deviation
            and min(replies[1:]) >= STEADY * sum(replies) / 4 > 0
        )


def rejected_share(records: Sequence[RequestRecord]) -> float:
    """Return the share (0..1) of requests that the server rejected because its queue was full."""
    return sum(record.status == REJECTED for record in records) / max(1, len(records))


def rejection_reason(records: Sequence[RequestRecord]) -> str:
    """Return why an open loop is over-saturated by its rejected requests; empty if it is not.

    A server that rejects requests has no growing backlog, so `SaturationWatch` does not see it.
    """
    share = rejected_share(records)
    if share <= MAX_REJECTED:
        return ""
    return (
        f"the server rejected {percent(share)} of the {len(records)} requests, because its queue "
        "was full."
    )
