"""Which rates a server holds, from cells and steps that failed, rejected requests or differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from crossbench.measure.steps import Step
from crossbench.report.axes import varying
from crossbench.report.compare import Run, summarise_cells
from crossbench.report.rate_answer import rate_answers
from crossbench.report.steps import steps_section
from crossbench.results import Flag
from crossbench.types import RequestRecord
from tests.report.test_loads import open_loop, poisson, run


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
        replace(r, due_s=r.due_s + 40 * i, sent_s=r.sent_s + 40 * i, received_s=r.received_s + 40 * i)
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
