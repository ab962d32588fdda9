"""Simulated queues with known answers: what a client would record of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from crossbench.types import RequestRecord


def closed_queue(
    requests: int, concurrency: int, workers: int, service_s: Callable[[], float], pairs: int = 1
) -> list[RequestRecord]:
    """`concurrency` users without thinking time in front of `workers` with one queue.

    `service_s` draws the time of each request. The true throughput is workers / its mean.
    """
    users, free_s = [0.0] * concurrency, [0.0] * workers
    records = []
    for index in range(requests):
        sent_s = heapq.heappop(users)
        start_s = max(sent_s, heapq.heappop(free_s))
        end_s = start_s + service_s()
        heapq.heappush(free_s, end_s)
        heapq.heappush(users, end_s)
        records.append(one_record(index, sent_s, start_s, end_s, pairs))
    return records


def open_queue(
    due_s: Sequence[float], workers: int, service_s: Callable[[], float], pairs: int = 1
) -> list[RequestRecord]:
    """Requests at the times `due_s`, ascending, in front of `workers` with one queue."""
    free_s = [0.0] * workers
    records = []
    for index, sent_s in enumerate(due_s):
        start_s = max(sent_s, heapq.heappop(free_s))
        end_s = start_s + service_s()
        heapq.heappush(free_s, end_s)
        records.append(one_record(index, sent_s, start_s, end_s, pairs))
    return records


def one_record(
    index: int, sent_s: float, start_s: float, end_s: float, pairs: int
) -> RequestRecord:
    """Return the record of a request that the model began at `start_s`."""
    return RequestRecord(
        index=index,
        due_s=sent_s,
        sent_s=sent_s,
        received_s=end_s,
        pairs=pairs,
        tokens=pairs,
        truncated=0,
        tokenize_ms=0.0,
        queue_ms=(start_s - sent_s) * 1e3,
        infer_ms=(end_s - start_s) * 1e3,
        status="OK",
    )
