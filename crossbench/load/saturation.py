"""Whether an open loop asks for more than the server can do, recognised while it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from crossbench.types import RequestRecord
from crossbench.wording import percent

MIN_REQUESTS = 20  # before which nothing is said
GROWTH = 0.1  # of the second half's requests, by which the backlog must have grown in it
REJECTED = grpc.StatusCode.RESOURCE_EXHAUSTED.name  # the server's queue is full
MAX_REJECTED = 0.05  # share of an open loop's requests; above it the load is more than capacity
DEVIATIONS = 2.5  # of a Poisson process, by which the backlog must exceed an empty queue


@dataclass
class SaturationWatch:
    """Watches the backlog of an open loop: the requests that are due and not yet answered.

    Above capacity the backlog grows steadily. The loop counts as over-saturated once, over the
    requests so far, (1) the backlog at the end of each quarter is larger than at the end of the
    quarter before, (2) in the second half it has grown by at least a tenth of that half's requests,
    and (3) it is at least 2.5 times the square root of all requests, which chance seldom reaches.
    `python -m benchmarks.statistics` prints how often that is right.
    """

    _backlogs: list[int] = field(default_factory=list)

    def is_over_saturated(self, backlog: int) -> bool:
        """Note the backlog at the moment the next request is due."""
        self._backlogs.append(backlog)
        count = len(self._backlogs)
        if count < MIN_REQUESTS:
            return False
        last = count - 1
        first, half, third, end = (self._backlogs[last * k // 4] for k in (1, 2, 3, 4))
        return (
            first < half < third < end
            and end - half >= GROWTH * (last - last // 2)
            and end >= DEVIATIONS * math.sqrt(count)
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
