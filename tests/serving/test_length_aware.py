"""The length-aware scheduler: groups by length, respects budgets, starves and loses nothing."""

from __future__ import annotations

import numpy as np
import pytest

from crossbench.errors import ConfigError
from crossbench.serving.length_aware import LengthAwareScheduler
from crossbench.serving.scheduler import MicroBatch


def make(layout: str = "padded", pairs: int = 8, tokens: int = 1000) -> LengthAwareScheduler:
    return LengthAwareScheduler("length_aware", layout, pairs, tokens, max_padding_waste=0.15)


def plan(batch: MicroBatch) -> list[tuple[int, list[int]]]:
    return [(part.request, part.indices.tolist()) for part in batch]


def add(scheduler: LengthAwareScheduler, request: int, *lengths: int) -> None:
    scheduler.add(request, np.array(lengths, dtype=np.int32), 0.0)


def test_similar_lengths_of_several_requests_run_together() -> None:
    scheduler = make()
    add(scheduler, 1, 20, 100, 21)
    add(scheduler, 2, 99, 22, 100)
    assert plan(scheduler.take(0.0)) == [(1, [1]), (2, [0, 2])]
    assert plan(scheduler.take(0.0)) == [(1, [0, 2]), (2, [1])]
    assert scheduler.take(0.0) == ()


def test_a_packed_layout_ignores_lengths_and_takes_the_oldest() -> None:
    scheduler = make("packed", pairs=3)
    add(scheduler, 1, 20, 100)
    add(scheduler, 2, 100, 21)
    assert plan(scheduler.take(0.0)) == [(1, [0, 1]), (2, [0])]


def test_an_idle_worker_takes_a_single_pair_immediately_even_over_budget() -> None:
    scheduler = make(tokens=50)
    add(scheduler, 1, 400)
    assert plan(scheduler.take(0.0)) == [(1, [0])]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_budgets_hold_and_everything_runs_once(layout: str) -> None:
    random = np.random.default_rng(3)
    scheduler = make(layout, pairs=16, tokens=1500)
    waiting = {}
    for request in range(20):
        lengths = random.integers(5, 400, size=int(random.integers(1, 60))).astype(np.int32)
        scheduler.add(request, lengths, 0.0)
        waiting[request] = lengths
    assert scheduler.waiting == sum(map(len, waiting.values()))
    seen: list[tuple[int, int]] = []
    while batch := scheduler.take(0.0):
        picked = np.concatenate([waiting[part.request][part.indices] for part in batch])
        computed = picked.sum() if layout == "packed" else picked.max() * len(picked)
        assert len(picked) <= 16
        assert computed <= 1500
        assert 1 - picked.sum() / computed <= 0.15
        seen += [(part.request, int(index)) for part in batch for index in part.indices]
    assert len(seen) == len(set(seen)) == sum(map(len, waiting.values()))
    assert scheduler.waiting == 0


def test_an_unusual_length_does_not_starve() -> None:
    scheduler = make(pairs=4)
    add(scheduler, 0, 500)
    for request in range(1, 50):
        add(scheduler, request, 30, 31, 30, 31)
        if any(part.request == 0 for part in scheduler.take(0.0)):
            break
    assert request == 1


def test_a_discarded_request_never_runs() -> None:
    scheduler = make()
    add(scheduler, 1, 50, 51)
    add(scheduler, 2, 50)
    scheduler.discard(1)
    scheduler.discard(7)
    assert scheduler.waiting == 1
    assert plan(scheduler.take(0.0)) == [(2, [0])]


def test_an_unknown_layout_is_rejected() -> None:
    with pytest.raises(ConfigError, match="padded, packed"):
        make("sparse")
