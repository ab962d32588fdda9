"""Every load in a real cell: its requests follow the schedule, and the report says what it was."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from crossbench.load.schedule import SCHEDULE_FILE, arrivals
from crossbench.load.sizes import Sizes
from crossbench.load.stop import LimitWatch
from crossbench.measure.steps import Step, step_metrics
from crossbench.results import Flag, Status, save_records
from crossbench.runner.cell import Outcome, measure_cell
from crossbench.runner.event_stream import EventStream
from crossbench.runner.load import build_traffic
from crossbench.system.rows import load_rows
from crossbench.trace import main as print_trace
from crossbench.types import RequestRecord, Task
from tests.helpers.plans import config_of, plan_of

QUICK = (
    "backend=noop", "quality=none", "tracker=none", "dashboard=none", "scheduler=direct",
    "dataset.queries=4", "dataset.passages_per_query=40", "max_seconds=20", "warmup_requests=4",
    "stop=fixed", "warmup_max_seconds=0.5",
)  # fmt: skip
WARMED_UP = 4
SEED = 7


def cell(cache_dir: Path, *overrides: str) -> Outcome:
    """Measure a cell in this process."""
    config = config_of(*QUICK, f"seed={SEED}", f"cache_dir={cache_dir}", *overrides)
    outcome = measure_cell(config, EventStream(io.StringIO()))
    assert outcome.result.status is Status.FINISHED, outcome.result.error
    assert all(record.ok for record in outcome.records)
    return outcome


def in_order(outcome: Outcome) -> list[RequestRecord]:
    return sorted(outcome.records, key=lambda record: record.index)


@pytest.mark.parametrize(
    ("overrides", "cv"),
    [(["load=constant"], 0.0), (["load=poisson"], 1.0), (["load=gamma", "load.cv=3"], 3.0)],
)
def test_an_open_loop_sends_what_its_seed_draws(
    overrides: list[str], cv: float, cache_dir: Path, tmp_path: Path
) -> None:
    outcome = cell(cache_dir, *overrides, "load.rate=40", "requests=60", "batch=3")
    records = in_order(outcome)
    due_s = arrivals(40.0, cv, 20.0, 60, np.random.default_rng(SEED))
    assert [record.due_s for record in records] == due_s.tolist()
    assert all(record.sent_s >= record.due_s for record in records)
    assert {record.pairs for record in records} == {3}
    assert outcome.schedule is not None
    file = outcome.schedule.save(tmp_path)
    assert file.name == SCHEDULE_FILE
    rows = load_rows(file, lambda *row: row, ["due_s", "pairs"])  # type: ignore[arg-type]
    assert rows == [(due, None) for due in due_s.tolist()]  # type: ignore[comparison-overlap]


def test_offline_keeps_max_in_flight_requests_and_sizes_follow_their_shares(
    cache_dir: Path,
) -> None:
    outcome = cell(
        cache_dir, "load=offline", "load.max_in_flight=5", "load.sizes=[[2,0.5],[30,0.5]]",
        "requests=80", "backend.service_us_per_pair=50",
    )  # fmt: skip
    records = in_order(outcome)
    assert [record.due_s for record in records] == [0.0] * 80  # late, and none is dropped
    assert _most_in_flight(records) == 5
    sizes = Sizes.of([[2, 0.5], [30, 0.5]])
    assert sizes is not None
    drawn = list(itertools.islice(sizes.draw(SEED), WARMED_UP + 80))
    assert [record.pairs for record in records] == drawn[WARMED_UP:]
    assert records[-1].latency_ms > 4 * records[0].latency_ms


def _most_in_flight(records: list[RequestRecord]) -> int:
    changes = [(r.sent_s, 1) for r in records] + [(r.received_s, -1) for r in records]
    return max(itertools.accumulate(change for _, change in sorted(changes)))


def test_a_ramp_of_concurrency_has_a_row_for_each_step(cache_dir: Path) -> None:
    outcome = cell(
        cache_dir, "load=ramp", "load.levels=[1,4]", "max_seconds=1", "requests=100000",
        "batch=40", "backend.service_us_per_pair=1000",
    )  # fmt: skip
    steps = [Step(**step) for step in outcome.result.steps]
    assert [(step.label, step.start_s, step.end_s) for step in steps] == [
        ("concurrency=1", 0.0, 0.5), ("concurrency=4", 0.5, 1.0),
    ]  # fmt: skip
    one, four = step_metrics(steps, outcome.records, Task.SCORE)
    assert 2 < four["latency/p50_ms"] / one["latency/p50_ms"] < 5.5
    assert outcome.schedule is None


def test_a_ramp_of_the_rate_raises_it_at_each_step(cache_dir: Path) -> None:
    outcome = cell(
        cache_dir, "load=ramp", "load.of=rate", "load.levels=[40,160]", "max_seconds=1",
        "requests=100000", "batch=2",
    )  # fmt: skip
    assert outcome.schedule is not None
    due_s = outcome.schedule.due_s
    assert [record.due_s for record in in_order(outcome)] == due_s.tolist()
    first = int((due_s < 0.5).sum())
    assert first == pytest.approx(20, abs=14)  # three standard deviations
    assert len(due_s) - first == pytest.approx(80, abs=27)


def test_a_trace_of_a_cell_is_sent_again(
    cache_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cell(
        cache_dir, "load=poisson", "load.rate=30", "requests=40", "load.sizes=[[2,1],[7,2]]"
    )
    save_records(before.records, tmp_path)
    capsys.readouterr()
    print_trace([str(tmp_path)])
    file = tmp_path / "trace.csv"
    file.write_text(capsys.readouterr().out, "utf-8")
    again = cell(cache_dir, "load=trace", f"load.path={file}", "load.speed=2", "requests=1000")
    first_s = in_order(before)[0].due_s
    expected_s = [(record.due_s - first_s) / 2 for record in in_order(before)]
    assert [record.due_s for record in in_order(again)] == pytest.approx(expected_s, abs=1e-6)
    assert [r.pairs for r in in_order(again)] == [r.pairs for r in in_order(before)]


def test_a_server_that_rejects_requests_is_over_saturated(cache_dir: Path) -> None:
    """Its queue is full after three requests, so the backlog does not grow."""
    config = config_of(
        *QUICK, f"cache_dir={cache_dir}", "load=constant", "load.rate=40", "requests=60",
        "batch=60", "backend.service_us_per_pair=1000", "server.max_queue_pairs=120",
    )  # fmt: skip
    result = measure_cell(config, EventStream(io.StringIO())).result
    assert result.status is Status.FINISHED, result.error
    assert re.match(r"the server rejected \d+ % of the 60 requests", result.flags["over-saturated"])


def test_an_over_saturated_cell_ends_early_and_says_what_was_sustained(cache_dir: Path) -> None:
    """Each request takes 60 ms, so that the time for the rest of the work hardly matters."""
    outcome = cell(
        cache_dir, "load=poisson", "load.rate=80", "batch=60", "backend.service_us_per_pair=1000"
    )
    assert len(outcome.records) < 200
    reason = outcome.result.flags[Flag.OVER_SATURATED]
    assert "The load ended early" in reason
    assert any(warning.startswith("Over-saturated: ") for warning in outcome.result.warnings)
    assert 900 < outcome.result.metrics["throughput/pairs_per_s"] <= 1000


@pytest.mark.parametrize(
    ("overrides", "limited"),
    [
        (("load=ramp", "load.of=rate", "load.levels=[1,2]"), True),
        (("load=ramp", "load.levels=[1,2]"), True),
        (("load=poisson", "load.rate=2"), False),
        (("load=closed",), False),
    ],
)
def test_a_ramp_runs_all_its_steps_however_precise_the_first_is(
    overrides: tuple[str, ...], limited: bool, cache_dir: Path
) -> None:
    plan = plan_of("stop.p95_precision=0.1", *overrides, cache_dir=cache_dir)
    assert isinstance(build_traffic(plan).watch(), LimitWatch) is limited
