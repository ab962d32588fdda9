"""Two sweeps are matched, judged and described."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crossbench.errors import ConfigError
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, RSS_PEAK_MB
from crossbench.measure.contrasts import Allowance, Difference
from crossbench.report.allowance import JUDGED
from crossbench.report.comparison import Comparison, judge_pairs
from crossbench.report.comparison_text import decision, markdown_report, terminal_text
from crossbench.report.pairing import Match, contradictions, explanations, pair_cells
from crossbench.results import Flag, RunResult, Status
from tests.helpers.measured import MACHINE, measured

DEFAULT = Allowance(0.1, math.inf, "the default of 10 %")
ALLOWANCES = {metric.name: DEFAULT for metric in JUDGED}
INT8 = {"quant": {"name": "int8"}}


def runs(
    rate: float, *, sd: float = 0.005, count: int = 4, seed: int = 0, **more: Any
) -> list[RunResult]:
    """Return repeats of a cell whose latency is that of its rate."""
    draws = np.exp(np.random.default_rng(seed).normal(0, sd, count))
    return [measured(rate * draw, 5e4 / (rate * draw), **more) for draw in draws]


def compared(
    a: Sequence[RunResult], b: Sequence[RunResult], *, threshold: float = 0.02,
    match: Match = Match.IDENTITY, common: bool = False,
) -> Comparison:  # fmt: skip
    paired = pair_cells(a, b, match)
    cells, sources = judge_pairs(paired.pairs, (ALLOWANCES, ALLOWANCES), 0.02, threshold)
    return Comparison(
        ("before", "after"), ("2026-11-25T10:00", "2026-11-26T10:00"), cells, paired,
        tuple(contradictions(paired.pairs)), tuple(explanations(paired.pairs)), sources,
        () if common else paired.only_a, (), 0.02, threshold,
    )  # fmt: skip


def test_a_slower_cell_is_a_regression() -> None:
    found = compared(
        [*runs(1000), *runs(2000, config=INT8, seed=1)],
        [*runs(900, seed=2), *runs(2000, config=INT8, seed=3)],
    )
    slow, same = found.cells
    rate = slow.of(PAIRS_PER_S)
    assert rate is not None
    assert rate.regressed
    assert rate.contrast.difference is Difference.LOWER
    assert rate.contrast.ratio == pytest.approx(0.9, rel=0.01)
    p95 = slow.of(P95_LATENCY)
    assert p95 is not None
    assert (p95.contrast.difference, p95.regressed) == (Difference.HIGHER, True)
    assert not same.regressed
    assert found.regressed
    assert decision(found) == "REGRESSION: B is worse than A in 1 of 2 cells."
    text = terminal_text(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "- onnx fp32 batch=8 concurrency=1: throughput is slower, -10" in text
    assert "onnx int8 batch=8 concurrency=1" in text


def test_a_faster_cell_and_a_small_loss_are_no_regression() -> None:
    assert not compared(runs(1000), runs(1200, seed=1)).regressed
    small = compared(runs(1000), runs(900, seed=1), threshold=0.15)
    assert small.cells[0].metrics[0].contrast.difference is Difference.LOWER
    assert not small.regressed
    assert decision(small).startswith("No regression beyond 15 %")


def test_what_cannot_be_told_is_said_and_is_no_regression() -> None:
    found = compared(runs(1000, count=1), runs(950, count=1, seed=1))
    assert not found.regressed
    assert decision(found) == (
        "No regression beyond 2 % was found, but 3 of 3 comparisons cannot tell."
    )
    assert "For cells that ran once or twice, the spread is the default of 10 %" in terminal_text(
        found
    )
    assert "more)" in markdown_report(found, "command")


def test_equal_cells_are_the_same() -> None:
    found = compared(runs(1000, sd=0.001), runs(1000, sd=0.001, seed=1))
    assert [item.contrast.difference for item in found.cells[0].metrics] == [Difference.SAME] * 3
    assert decision(found) == "No regression beyond 2 % in 1 cell."


def test_a_threshold_inside_the_margin_counts() -> None:
    before, after = runs(1000, sd=0.0005, count=6), runs(990, sd=0.0005, count=6, seed=1)
    assert not compared(before, after).regressed
    strict = compared(before, after, threshold=0.005)
    assert strict.regressed
    assert "throughput is worse, -1.0 %" in terminal_text(strict)
    assert not compared(before, before, threshold=0.0).regressed


def test_a_single_run_has_at_least_the_spread_that_the_other_side_shows() -> None:
    noisy = [measured(rate, 5e4 / rate) for rate in (560, 700, 860)]
    assert not compared(runs(1130, count=1), noisy).regressed


def test_two_runs_that_differ_much_are_not_given_the_assumed_spread() -> None:
    apart = [*runs(500, count=1), *runs(1500, count=1)]
    assert not compared(runs(1000), apart).regressed
    found = compared(runs(1000, count=2), runs(850, count=2, seed=1))
    assert "For cells that ran once or twice" in terminal_text(found)


LOSSES: dict[str, tuple[dict[str, Any], str]] = {
    "over-saturated": ({"flags": {Flag.OVER_SATURATED: "why"}}, "it is over-saturated in B"),
    "refused": ({"failed": 200.0}, "50.0 % of its requests failed in B"),
    "silent": ({"rate": 0.0}, "no request was answered in B"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_server_that_no_longer_copes_is_a_regression(loss: str) -> None:
    values, message = LOSSES[loss]
    after = []
    for run in runs(1000, seed=1):
        metrics = dict(run.metrics)
        metrics["requests/failed"] = values.get("failed", 0.0)
        metrics[PAIRS_PER_S.name] = values.get("rate", metrics[PAIRS_PER_S.name])
        after.append(replace(run, metrics=metrics, flags=values.get("flags", {})))
    found = compared(runs(1000), after)
    assert found.regressed
    assert message in " ".join(terminal_text(found).split())
    assert not compared(after, runs(1000)).regressed


def test_runs_that_crash_only_in_b_are_a_regression() -> None:
    failed = replace(measured(1.0), status=Status.FAILED, metrics={}, error="killed")
    found = compared(runs(1000), [*runs(1000, count=3, seed=1), failed])
    assert "1 of its 4 runs did not finish in B (failed: killed)" in " ".join(
        terminal_text(found).split()
    )


def test_a_p95_that_only_a_has_is_named_and_cannot_be_told() -> None:
    found = compared(runs(1000), runs(1000, seed=1, requests=80))
    assert "B has no value that can be compared of p95" in " ".join(terminal_text(found).split())
    assert "cannot tell" in decision(found)


def test_memory_that_grows_is_a_regression() -> None:
    a = [measured(1000, 50, memory) for memory in (500, 501, 500.5)]
    b = [measured(1000, 50, memory) for memory in (600, 601, 600.5)]
    memory = compared(a, b).cells[0].of(RSS_PEAK_MB)
    assert memory is not None
    assert memory.regressed


def test_a_cell_that_no_longer_finishes_is_a_regression() -> None:
    failed = replace(measured(1.0), status=Status.FAILED, metrics={}, error="out of memory\nmore")
    found = compared(runs(1000), [failed])
    assert found.regressed
    assert "it did not finish in B (failed: out of memory)" in " ".join(
        terminal_text(found).split()
    )
    assert not compared([failed], runs(1000)).regressed


@pytest.mark.parametrize(
    ("before", "after", "regressed"),
    [("keeps", "changes", True), ("cannot say", "changes", True), ("changes", "changes", False),
     (None, "changes", True), ("keeps", "cannot say", False), ("changes", "keeps", False)],
)  # fmt: skip
def test_rankings_stand_side_by_side(before: str | None, after: str, regressed: bool) -> None:
    found = compared(runs(1000, verdict=before), runs(1000, verdict=after, seed=1))
    assert found.regressed is regressed
    report = markdown_report(found, "command")
    assert f"| {before or 'not checked'} " in report.split("## Ranking quality")[1]


def test_a_p95_of_which_one_run_has_too_few_requests_is_not_compared() -> None:
    """The slow runs are those with few requests, so the others must not stand for all."""
    b = [*runs(1000, seed=1), *runs(700, count=1, requests=80)]
    cell = compared(runs(1000), b).cells[0]
    assert cell.of(P95_LATENCY) is None
    assert cell.of(PAIRS_PER_S) is not None


def test_other_models_data_and_precisions_contradict() -> None:
    def names(b: Sequence[RunResult], match: Match = Match.IDENTITY) -> list[str]:
        return [item.name for item in contradictions(pair_cells(runs(1000), b, match).pairs)]

    assert names(runs(1000)) == []
    assert names(runs(1000, model="other")) == ["hash of the model"]
    assert names(runs(1000, dataset="other")) == ["hash of the data set"]
    served = [replace(run, model={**run.model, "quant": "int8"}) for run in runs(1000)]
    assert names(served) == []  # the other side does not say it
    assert [
        item.name
        for item in contradictions(
            pair_cells(
                [replace(run, model={**run.model, "quant": "fp32"}) for run in runs(1000)],
                served,
                Match.IDENTITY,
            ).pairs
        )
    ] == ["precision"]
    unknown = [replace(run, model={}, dataset={}) for run in runs(1000)]
    assert names(unknown) == []


def test_another_machine_and_other_versions_are_named() -> None:
    other = {**MACHINE, "cpu": "Slow", "git_commit": "def", "versions": {"torch": "2.6"}}
    found = compared(runs(1000, environment=MACHINE), runs(900, environment=other))
    by_name = {item.name: (item.a, item.b) for item in found.explanations}
    assert by_name == {
        "CPU": ("Fast", "Slow"),
        "crossbench's commit": ("abc", "def"),
        "version of torch": ("2.5", "2.6"),
        "version of onnxruntime": ("1.20", "–"),
    }
    assert "Differences may also come from: CPU (Fast / Slow)" in " ".join(
        terminal_text(found).split()
    )
    assert "| CPU " in markdown_report(found, "command")


def test_cells_are_matched_by_label_if_asked() -> None:
    """A new setting of a new version changes what identifies a cell."""
    b = runs(1000, config={"scheduler": {"name": "dynamic", "wait_ms": 3}})
    with pytest.raises(ConfigError, match=r"differ in scheduler \(– / dynamic\).*--match label"):
        pair_cells(runs(1000), b, Match.IDENTITY)
    found = compared(runs(1000), b, match=Match.LABEL)
    assert {item.name for item in found.explanations} == {"scheduler", "scheduler.wait_ms"}


def test_cells_without_a_counterpart_are_a_regression_unless_not_asked_for() -> None:
    both = [*runs(1000), *runs(2000, config=INT8)]
    assert decision(compared(both, runs(1000, seed=1))) == "REGRESSION: B lacks 1 cell of A."
    assert not compared(runs(1000), both).regressed
    found = compared(both, runs(1000, seed=1), common=True)
    assert not found.regressed
    assert "1 cell has no counterpart and is not compared" in terminal_text(found)
    assert found.paired.only_a == ("onnx int8 batch=8 concurrency=1",)
    assert "only in A: onnx int8" in markdown_report(found, "command")
    with pytest.raises(ConfigError, match="no cell in common"):
        pair_cells(runs(1000), runs(1000, config=INT8), Match.IDENTITY)


def test_one_name_for_several_cells_is_refused() -> None:
    """The keys that name a load are in no name themselves."""
    a = [*runs(1000, config={"load": {"labels": ["concurrency", "batch"]}}), *runs(1000)]
    with pytest.raises(ConfigError, match="several cells of one sweep"):
        pair_cells(a, a, Match.LABEL)
    assert len(pair_cells(a, a, Match.IDENTITY).pairs) == 2


def test_flags_are_mentioned() -> None:
    b = [replace(run, flags={Flag.DISTURBED: "why"}) for run in runs(1000, seed=1)]
    assert "4 runs had flags" in terminal_text(compared(runs(1000), b))


def test_a_disturbed_cell_that_ran_once_is_not_judged() -> None:
    once, faster = runs(1000, count=1), runs(2200, count=1, seed=1)
    disturbed = [replace(run, flags={Flag.DISTURBED: "why"}) for run in once]
    rate = compared(disturbed, faster).cells[0].of(PAIRS_PER_S)
    assert rate is not None
    assert rate.contrast.difference is Difference.UNKNOWN
    assert not compared(faster, disturbed).regressed
    quiet = compared(once, faster).cells[0].of(PAIRS_PER_S)
    assert quiet is not None
    assert quiet.contrast.difference is Difference.HIGHER
    repeated = [replace(run, flags={Flag.DISTURBED: "why"}) for run in runs(1000)]
    measured_spread = compared(repeated, runs(2200, seed=1)).cells[0].of(PAIRS_PER_S)
    assert measured_spread is not None
    assert measured_spread.contrast.difference is Difference.HIGHER
