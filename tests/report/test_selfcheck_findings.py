"""What the runs of a selfcheck show, and how it is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, RSS_PEAK_MB
from crossbench.measure.contrasts import Difference
from crossbench.report.selfcheck import Block, Findings, find
from crossbench.report.selfcheck_text import markdown_report, terminal_text
from crossbench.results import Flag, Status
from tests.helpers.measured import measured

BLOCKS = 8


def findings(
    sd: float, *flags: Flag, slower: bool = True, requests: int = 200, seed: int = 1
) -> Findings:
    """Find what blocks of runs with this spread show; the slower cell is 5 % slower."""
    draws = np.exp(np.random.default_rng(seed).normal(0, sd, (BLOCKS, 3)))
    blocks = [
        Block(
            (
                measured(1000 * a, 50 / a, 500, *flags, requests=requests),
                measured(1000 * b, 50 / b, 500.1, requests=requests),
            ),
            measured(1000 / 1.05 * c, 50 * 1.05 / c, 500, requests=requests) if slower else None,
        )
        for a, b, c in draws
    ]
    return find("onnx fp32 batch=8", blocks, BLOCKS, 0.05, 0.02, seed=0)


def test_a_quiet_machine_sees_the_slowdown() -> None:
    found = findings(0.003)
    rate, p95, memory = found.metrics
    assert [check.metric for check in found.metrics] == [PAIRS_PER_S, P95_LATENCY, RSS_PEAK_MB]
    assert rate.spread.degrees == 2 * BLOCKS - 1
    assert rate.interval.low < 0.003 < rate.interval.high
    three, six = rate.visible
    assert three is not None
    assert six is not None
    assert six < three < 0.04
    assert rate.slower is not None
    assert rate.slower.difference is Difference.LOWER
    assert p95.slower is not None
    assert p95.slower.difference is Difference.HIGHER
    assert memory.slower is not None
    assert memory.slower.difference is Difference.SAME
    assert rate.equal.sweeps == 224
    assert rate.slowed.different > 0.9 * rate.slowed.sweeps
    assert rate.slowed.wrong == 0


def test_a_noisy_machine_cannot_tell() -> None:
    (rate, *_) = findings(0.1).metrics
    assert rate.slower is not None
    assert rate.slower.difference is Difference.UNKNOWN
    three, _ = rate.visible
    assert three is not None
    assert three > 0.3


def test_the_terminal_says_first_what_one_must_know_within_80_columns() -> None:
    text = terminal_text(findings(0.02, Flag.DISTURBED))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "onnx fp32 batch=8: 16 runs of this cell in 8 blocks."
    assert lines[2].split("  ")[-1].strip() == "false"
    assert lines[4].startswith("throughput")
    joined = " ".join(text.split())
    assert "8 of 24 runs were disturbed" in joined
    assert "of all 224 that these runs can be cut into" in joined
    assert "Verdicts on the cell that needs 5.0 % more time per pair: throughput " in joined


def test_a_backend_of_unknown_speed_has_the_slowdown_put_into_its_values() -> None:
    text = " ".join(terminal_text(findings(0.003, slower=False)).split())
    assert "Verdicts on" not in text
    assert "With values made 5.0 % slower, " in text


def test_a_p95_of_few_requests_is_not_judged() -> None:
    found = findings(0.01, requests=99)
    assert P95_LATENCY not in [check.metric for check in found.metrics]
    assert "p95: not judged, because it needs 100 requests" in terminal_text(found)


def test_too_few_runs_say_nothing() -> None:
    failed = replace(measured(1.0), status=Status.FAILED, metrics={}, error="no luck. Try again")
    block = Block((failed, measured(1000.0)))
    found = find("noop", [block] * 8, 8, 0.05, 0.02, seed=0)
    assert not found.metrics
    text = terminal_text(found)
    assert "Too few runs finished" in text
    assert "no luck" in text
    assert "interrupted before 8 blocks" in terminal_text(find("noop", [], 8, 0.05, 0.02, 0))


def test_the_report_has_every_run() -> None:
    report = markdown_report(findings(0.02), "python -m crossbench.selfcheck", "Stored: x")
    assert report.count("| slower ") == BLOCKS
    assert "| 8     | A again |" in report
    assert "at least `report.spread`" in report
