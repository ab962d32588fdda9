"""Which rates a server holds, from cells and steps that failed, rejected requests or differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from crossbench.report.axes import varying
from crossbench.report.compare import Run, summarise_cells
from crossbench.report.rate_answer import rate_answers
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
