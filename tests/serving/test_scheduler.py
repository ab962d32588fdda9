"""The policies of the schedulers, with simulated time."""

from __future__ import annotations

import numpy as np
import pytest

from crossbench.errors import ConfigError
from crossbench.serving.scheduler import DirectScheduler, DynamicScheduler, MicroBatch
from crossbench.types import Int32Array


def lengths(count: int) -> Int32Array:
    return np.full(count, 20, dtype=np.int32)


def plan(batch: MicroBatch) -> list[tuple[int, list[int]]]:
    return [(part.request, part.indices.tolist()) for part in batch]


def test_direct_runs_each_request_alone_in_order_of_arrival() -> None:
    scheduler = DirectScheduler("direct")
    scheduler.add(1, lengths(3), 0.0)
    scheduler.add(2, lengths(1), 0.0)
    assert scheduler.waiting == 4
    assert plan(scheduler.take(0.0)) == [(1, [0, 1, 2])]
    assert plan(scheduler.take(0.0)) == [(2, [0])]
    assert scheduler.take(0.0) == ()


def test_dynamic_joins_requests_and_splits_one_that_does_not_fit() -> None:
    scheduler = DynamicScheduler("dynamic", max_batch_pairs=4, timeout_ms=5.0)
    scheduler.add(1, lengths(3), 0.0)
    scheduler.add(2, lengths(3), 0.001)
    assert plan(scheduler.take(0.002)) == [(1, [0, 1, 2]), (2, [0])]
    assert scheduler.waiting == 2
    assert plan(scheduler.take(0.003)) == [(2, [1, 2])]
    assert scheduler.take(0.004) == ()


def test_an_idle_worker_never_waits() -> None:
    scheduler = DynamicScheduler("dynamic", max_batch_pairs=256, timeout_ms=1000.0)
    scheduler.add(1, lengths(1), 10.0)
    assert plan(scheduler.take(10.0)) == [(1, [0])]


def test_a_batch_closes_timeout_ms_after_its_first_sequence() -> None:
    scheduler = DynamicScheduler("dynamic", max_batch_pairs=256, timeout_ms=5.0)
    for request, arrived_s in ((1, 0.000), (2, 0.004), (3, 0.006)):
        scheduler.add(request, lengths(1), arrived_s)
    assert plan(scheduler.take(1.0)) == [(1, [0]), (2, [0])]
    assert plan(scheduler.take(1.0)) == [(3, [0])]


@pytest.mark.parametrize(
    "scheduler", [DirectScheduler("direct"), DynamicScheduler("dynamic", 256, 5.0)]
)
def test_a_discarded_request_never_runs(
    scheduler: DirectScheduler | DynamicScheduler,
) -> None:
    scheduler.add(1, lengths(2), 0.0)
    scheduler.add(2, lengths(2), 0.0)
    scheduler.discard(1)
    assert scheduler.waiting == 2
    assert plan(scheduler.take(0.0)) == [(2, [0, 1])]


@pytest.mark.parametrize(("pairs", "timeout_ms"), [(0, 5.0), (-1, 5.0), (8, -0.1)])
def test_invalid_settings_are_rejected(pairs: int, timeout_ms: float) -> None:
    with pytest.raises(ConfigError, match="must be at least"):
        DynamicScheduler("dynamic", pairs, timeout_ms)
