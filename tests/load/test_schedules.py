"""Schedules, sizes, traces and over-saturation: what is due when, without a server."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from crossbench.errors import ConfigError
from crossbench.load.protocol import LoadContext
from crossbench.load.ramp import Ramp
from crossbench.load.saturation import SaturationWatch
from crossbench.load.schedule import Schedule, arrivals
from crossbench.load.sizes import Sizes
from crossbench.load.stop import Limits
from crossbench.load.trace import read_trace, trace_lines
from crossbench.system.rows import load_rows
from tests.helpers.records import record


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_constant_rate_has_equal_gaps_and_starts_at_once() -> None:
    assert arrivals(4.0, 0.0, 1.0, 100, rng()).tolist() == [0.0, 0.25, 0.5, 0.75]
    assert len(arrivals(4.0, 0.0, 100.0, 7, rng())) == 7


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_random_gaps_have_the_requested_rate_and_variation(cv: float) -> None:
    due_s = arrivals(50.0, cv, 400.0, 10**6, rng())
    gaps_s = np.diff(due_s)
    assert len(due_s) == pytest.approx(20_000, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.05)
    assert due_s.max() < 400
    assert (np.diff(due_s) >= 0).all()


def test_a_schedule_is_the_same_for_a_seed_and_survives_its_file(tmp_path: Path) -> None:
    one, other = (Schedule(arrivals(5.0, 1.0, 10.0, 100, rng())) for _ in range(2))
    assert one.due_s.tolist() == other.due_s.tolist()
    rows = load_rows(one.save(tmp_path), lambda *row: row, ["due_s", "pairs"])  # type: ignore[arg-type]
    assert [due_s for due_s, _ in rows] == one.due_s.tolist()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rate", "cv", "message"),
    [
        (0.0, 0.0, r"load\.rate must be a positive number"),
        (float("nan"), 0.0, r"load\.rate must be a positive number"),
        (1.0, -1.0, r"load\.cv must be 0 or more"),
        (1e9, 0.0, "give a lower rate"),
    ],
)
def test_an_impossible_schedule_is_refused(rate: float, cv: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        arrivals(rate, cv, 60.0, 10**12, rng())


def test_sizes_follow_their_shares() -> None:
    sizes = Sizes.of([[10, 1], [100, 3]])
    assert sizes is not None
    drawn = list(itertools.islice(sizes.draw(0), 10_000))
    assert set(drawn) == {10, 100}
    assert drawn.count(100) == pytest.approx(7500, rel=0.03)
    assert drawn[:50] == list(itertools.islice(sizes.draw(0), 50))


@pytest.mark.parametrize(
    "value", [[], "10", [10, 0.5], [[0, 1]], [[1.5, 1]], [[10, 0]], [[True, 1]]]
)
def test_invalid_sizes_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"load\.sizes must be a list of \[pairs, share\]"):
        Sizes.of(value)


def test_a_trace_starts_at_its_first_request_whatever_the_order_of_lines(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("pairs,arrival_s\n3,100.5\n2,100\n7,101.25\n", "utf-8")
    trace = read_trace(file)
    assert list(trace) == [(0.0, 2), (0.5, 3), (1.25, 7)]
    file.write_text('{"arrival_s": 2.0}\n\n{"arrival_s": 1.0}\n', "utf-8")
    assert list(read_trace(file)) == [(0.0, None), (1.0, None)]


def test_the_records_of_a_cell_become_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    records = [record(1.0, 2.0, index=1, pairs=4), record(0.5, 3.0, index=0, pairs=8)]
    file.write_text("\n".join(trace_lines(records)), "utf-8")
    assert list(read_trace(file)) == [(0.0, 8), (0.5, 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column arrival_s"),
        ("arrival_s\n", "holds no request"),
        ("arrival_s\n1\nx\n", "line 3: arrival_s is 'x', not a number"),
        ("arrival_s,pairs\n1,2\n2,\n", "line 3: pairs is missing"),
        ("arrival_s,pairs\n1,0\n", "line 2: pairs is 0"),
        ("arrival_s\nnan\n", "line 2: arrival_s is 'nan'"),
        ('{"arrival_s": 1}\n{"x"\n', "line 2 is not JSON"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        read_trace(file)


def test_a_growing_backlog_is_recognised_and_a_steady_one_is_not() -> None:
    growing, steady = SaturationWatch(), SaturationWatch()
    assert any(growing.is_over_saturated(backlog) for backlog in range(40))
    backlogs = rng().poisson(3, 2000)
    assert not any(steady.is_over_saturated(int(backlog)) for backlog in backlogs)


def test_a_ramp_has_equal_steps_over_the_time_of_the_cell() -> None:
    context = LoadContext(1, 0, Limits(10_000, 8.0), 8.0)
    ramp = Ramp("ramp", [], context, "rate", [10, 20], None)
    assert [(step.label, step.start_s, step.end_s) for step in ramp.steps] == [
        ("rate=10", 0.0, 4.0),
        ("rate=20", 4.0, 8.0),
    ]
    assert ramp.schedule is not None
    first, second = (
        int(((ramp.schedule.due_s >= start) & (ramp.schedule.due_s < start + 4)).sum())
        for start in (0.0, 4.0)
    )
    assert first == pytest.approx(40, abs=20)
    assert second == pytest.approx(80, abs=28)


@pytest.mark.parametrize(
    ("of", "levels", "message"),
    [
        ("speed", [1], "load.of must be one of rate, concurrency"),
        ("rate", [], "load.levels must be positive numbers"),
        ("concurrency", [1.5], "load.levels must be whole numbers"),
    ],
)
def test_an_invalid_ramp_is_refused(of: str, levels: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ramp("ramp", [], LoadContext(1, 0, Limits(10, 1.0), 1.0), of, levels, None)
