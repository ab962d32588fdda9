"""Stalls of the server: long times without a reply while requests are in flight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossbench.types import RequestRecord

MIN_STALL_S = 0.5
FACTOR = 5  # of the median service time


def stalls_s(records: Sequence[RequestRecord]) -> NDArray[np.float64]:
    """Return the length of each stall in seconds, float64 (n,).

    A stall is a time without a reply, with at least one request in flight, that is longer than half
    a second and than five median service times. Failed requests count as replies.
    """
    if not records:
        return np.empty(0)
    received_s = np.array([record.received_s for record in records])
    order = np.argsort(received_s)
    received_s = received_s[order]
    sent_s = np.array([record.sent_s for record in records])[order]
    # The earliest send of the requests that are in flight just before each reply
    waiting_since_s = np.minimum.accumulate(sent_s[::-1])[::-1]
    last_reply_s = np.concatenate(([-np.inf], received_s[:-1]))
    silence_s = received_s - np.maximum(last_reply_s, waiting_since_s)
    usual_s = float(np.median(received_s - sent_s))
    stalls: NDArray[np.float64] = silence_s[silence_s > max(MIN_STALL_S, FACTOR * usual_s)]
    return stalls
