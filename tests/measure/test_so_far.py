"""The metrics of a running measurement: those that the finished one would have."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbench.measure import catalogue
from crossbench.measure.so_far import MOST_LATENCIES, SoFar
from crossbench.measure.statistics import summarise
from crossbench.types import RequestRecord, Task
from tests.helpers.records import record

SHOWN = (
    catalogue.PAIRS_PER_S, *(catalogue.latency(level) for level in (50, 95, 99)),
    catalogue.REQUESTS_OK, catalogue.REQUESTS_FAILED,
)  # fmt: skip


def replies(seed: int, count: int, concurrency: int) -> list[RequestRecord]:
    """The replies of a closed loop in their order; some fail, and some wait before the model."""
    draw = random.Random(seed)
    free_s = [0.0] * concurrency
    made = []
    for index in range(count):
        lane = min(range(concurrency), key=free_s.__getitem__)
        took_s = draw.uniform(0.001, 0.5)
        sent_s, free_s[lane] = free_s[lane], free_s[lane] + took_s
        made.append(
            record(
                sent_s, free_s[lane], index=index, pairs=draw.randint(1, 9),
                status=draw.choice(["OK"] * 9 + ["UNAVAILABLE"]),
                infer_ms=1e3 * took_s * draw.uniform(0.2, 1.0),
            )
        )  # fmt: skip
    return sorted(made, key=lambda made: made.received_s)


def so_far(records: Sequence[RequestRecord]) -> dict[str, float]:
    taken = SoFar(Task.SCORE.unit)
    for reply in records:
        taken.add(reply)
    return taken.metrics()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(1, 40))
def test_the_metrics_so_far_are_those_of_the_records_so_far(
    seed: int, count: int, concurrency: int
) -> None:
    records = replies(seed, count, concurrency)
    expected = summarise(records)
    found = so_far(records)
    for metric in SHOWN:
        assert found.get(metric.name) == pytest.approx(expected.get(metric.name), abs=1e-3)


def test_nothing_is_known_without_a_reply() -> None:
    assert so_far([]) == {catalogue.REQUESTS_OK.name: 0, catalogue.REQUESTS_FAILED.name: 0}


def test_the_percentiles_of_a_long_cell_come_from_a_sample_of_its_requests() -> None:
    draw = random.Random(7)
    count = 5 * MOST_LATENCIES // 2
    latencies_s = [draw.expovariate(10.0) for _ in range(count)]
    found = so_far(
        [record(index, index + latency_s) for index, latency_s in enumerate(latencies_s)]
    )
    assert found[catalogue.REQUESTS_OK.name] == count
    ordered = sorted(latencies_s)
    for level in (50, 95, 99):
        exact_ms = 1e3 * ordered[int(level / 100 * count)]
        assert found[catalogue.latency(level).name] == pytest.approx(exact_ms, rel=0.05)
