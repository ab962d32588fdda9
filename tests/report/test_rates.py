"""Which rates a server holds, from cells and steps that failed, rejected requests or differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from crossbench.measure.steps import Step
from crossbench.report.answer import answer
from crossbench.report.axes import varying
from crossbench.report.cells import Estimate, Run
from crossbench.report.rate_answer import rate_answers, series_answers
from crossbench.report.rates import Level, Series
from crossbench.report.steps import steps_section
from crossbench.report.summaries import summarise_cells
from crossbench.report.verdicts import sweep_verdicts
from crossbench.results import Flag, Status
from crossbench.types import RequestRecord
from tests.helpers.loads import CLOSED, open_loop, poisson, run


def rate_lines(runs: Sequence[Run], bound_ms: float | None = None) -> str:
    axes = varying([item.result.config for item in runs])
    return "\n".join(rate_answers(summarise_cells(runs), axes, bound_ms))


def with_failures(name: str, rate: float, failed: int, status: str = "DEADLINE_EXCEEDED") -> Run:
    """One rate at which `failed` of 200 requests failed."""
    records = open_loop(rate, 100, 200)
    return run(
        name, [replace(r, status=status) if r.index < failed else r for r in records], poisson(rate)
    )


@pytest.mark.parametrize("bound_ms", [250, None])
def test_a_rate_with_many_failed_requests_does_not_hold(bound_ms: float | None) -> None:
    text = rate_lines([with_failures("0", 5, 0), with_failures("1", 10, 80)], bound_ms)
    assert "5 requests/s**" in text
    assert "; at 10 requests/s, 40 % of the requests failed." in text
    assert "may hold more" not in text


def test_a_rate_with_few_failed_requests_names_them() -> None:
    text = rate_lines([with_failures("0", 5, 0), with_failures("1", 10, 6)], 250)
    assert "10 requests/s** (p95 1" in text
    assert ", 3 % of the requests failed)" in text


def ramp(levels: Sequence[float], parts: Sequence[Sequence[RequestRecord]], *flags: Flag) -> Run:
    """A ramp of rates with steps of 40 s; `parts` are the records of its steps from 0 s on."""
    steps = [Step(f"rate={rate:g}", 40 * i, 40 * i + 40) for i, rate in enumerate(levels)]
    records = [
        replace(r, due_s=r.due_s + 40 * i, sent_s=r.sent_s + 40 * i,
                received_s=r.received_s + 40 * i)
        for i, part in enumerate(parts) for r in part if r.due_s < 40
    ]  # fmt: skip
    load = {"name": "ramp", "labels": ["load"], "of": "rate", "levels": list(levels)}
    return run("0", records, load, *flags, steps=steps)


def test_the_steps_of_a_ramp_are_compared_by_their_rates() -> None:
    falling = ramp([10, 5], [open_loop(10, 200, 900), open_loop(5, 100, 900)])
    text = rate_lines([falling], 250)
    assert text.startswith("**Highest rate with a p95 under 250 ms: 10 requests/s**")
    assert "may hold more" in text
    table = steps_section(falling.result, falling.records)
    assert table.index("rate=10") < table.index("rate=5 ")


def test_the_table_and_the_answer_name_the_same_over_saturated_steps() -> None:
    """The server rejects a third of the requests of one step; it does not end the ramp."""
    rejecting = [
        replace(r, status="RESOURCE_EXHAUSTED") if r.index % 3 == 0 else r
        for r in open_loop(20, 100, 900)
    ]
    item = ramp([5, 20, 10], [open_loop(5, 100, 900), rejecting, open_loop(10, 100, 900)])
    assert "at 20 requests/s the server is over-saturated" in rate_lines([item], 150)
    table = steps_section(item.result, item.records)
    (row,) = (line for line in table.splitlines() if "over-saturated" in line)
    assert row.startswith("| rate=20")
    assert "↑" not in table


def first_lines(runs: Sequence[Run], bound_ms: float | None) -> str:
    cells = summarise_cells(runs)
    axes = varying([item.result.config for item in runs])
    return answer(cells, axes, bound_ms, sweep_verdicts(cells))


def failed(item: Run, status: Status = Status.FAILED) -> Run:
    return Run(item.name, replace(item.result, status=status, error="killed"), item.records)


def test_a_rate_whose_cell_failed_is_named() -> None:
    runs = [run("0", open_loop(5, 100, 200), poisson(5)),
            failed(run("1", open_loop(10, 100, 200), poisson(10)))]  # fmt: skip
    text = rate_lines(runs, 250)
    assert "5 requests/s**" in text
    assert "; at 10 requests/s the cell failed: killed." in text
    assert "may hold more" not in text


def test_the_backend_is_named_if_another_one_was_unavailable() -> None:
    missing = failed(
        run("1", open_loop(5, 100, 200), poisson(5), backend="mlx"), Status.UNAVAILABLE
    )
    text = rate_lines([run("0", open_loop(5, 100, 200), poisson(5)), missing], 250)
    assert text.startswith("onnx: **Highest rate with a p95 under 250 ms: 5 requests/s**")


def repeats(rate: float, usual_ms: float, *flags: Sequence[Flag]) -> list[Run]:
    return [
        run(f"{rate:g}-{i}", open_loop(rate, usual_ms * (1 + i / 100), 200, i), poisson(rate),
            *each, repeat=i)
        for i, each in enumerate(flags)
    ]  # fmt: skip


def test_an_over_saturated_rate_does_not_widen_the_intervals_of_others() -> None:
    held = repeats(5, 100, (), (), ())
    over = [
        run(f"20-{i}", open_loop(12, 1000 * 3**i, 200, i), poisson(20),
            Flag.OVER_SATURATED, repeat=i)
        for i in range(3)
    ]  # fmt: skip
    alone = summarise_cells(held)[0].p95
    assert summarise_cells([*held, *over])[0].p95 == alone
    assert "5 requests/s**" in rate_lines([*held, *over], 250)


def test_repeats_that_disagree_about_over_saturation_are_not_sure() -> None:
    text = rate_lines(repeats(10, 100, (), (Flag.OVER_SATURATED,), ()), 250)
    assert "at 10 requests/s, it was over-saturated in 1 of 3 repeats" in text


def test_an_interval_is_that_of_a_run_that_finished() -> None:
    first = failed(run("0", open_loop(5, 900, 200), poisson(5), repeat=1))
    second = run("1", open_loop(5, 100, 200), poisson(5), repeat=2)
    (cell,) = summarise_cells([first, second])
    (alone,) = summarise_cells([second])
    assert cell.p95 == alone.p95
    assert cell.throughput == alone.throughput


def test_a_rate_holds_if_hardly_any_request_is_slower_even_if_p95_has_no_interval() -> None:
    latencies_ms = tuple(record.latency_ms for record in open_loop(5, 100, 101))
    level = Level(5.0, 5.0, Estimate(109.0), 101, latencies_ms=latencies_ms)

    def text(bound_ms: float) -> str:
        (line,) = series_answers([Series("", (level,))], bound_ms)
        return line

    assert text(1000).startswith("**Highest rate with a p95 under 1,000 ms: 5 requests/s** (p95 ")
    assert "0 of 101 requests took longer than 1,000 ms" in text(1000)
    assert "No measured rate" in text(95)  # most are slower
    assert "Cannot say" in text(109)  # about 5 % are slower


@pytest.mark.parametrize("flags", [(), (Flag.OVER_SATURATED,)])
def test_traces_have_a_first_line(flags: tuple[Flag, ...]) -> None:
    def trace(name: str, speed: float) -> Run:
        load = {"name": "trace", "labels": ["load", "load.speed"], "path": "t.csv", "speed": speed}
        return run(name, open_loop(5 * speed, 100, 200), load, *flags)

    runs = [trace("0", 1), trace("1", 2)]
    text = first_lines(runs, None)
    assert "speed=1" in text
    assert "speed=2" in text


def test_arrival_patterns_are_not_compared_as_if_they_were_servers() -> None:
    constant = {"name": "constant", "labels": ["load", "load.rate"], "rate": 5}
    runs = [run("0", open_loop(5, 100, 200), poisson(5)), run("1", open_loop(5, 90, 200), constant)]
    text = first_lines(runs, 250)
    assert "Lowest p95" not in text
    same = [*runs, run("2", open_loop(5, 150, 200), poisson(5), backend="packed")]
    text = first_lines(same, 250)
    assert text.count("has the lowest p95 latency with") == 1


def test_a_single_ramp_is_not_described_by_its_totals() -> None:
    item = ramp([5, 10], [open_loop(5, 100, 900), open_loop(10, 100, 900)])
    text = first_lines([item], 250)
    assert text.startswith("**Highest rate with a p95 under 250 ms: 10 requests/s**")
    assert "Only one cell" not in text
    closed = [run("0", open_loop(5, 100, 200), CLOSED)]
    assert "Only one cell" in first_lines(closed, 250)
