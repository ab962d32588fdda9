"""Reports say only what the verdicts show, also if runs are missing or cells differ in kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from crossbench.measure.contrasts import Difference
from crossbench.report.advice.recommendations import recommend
from crossbench.report.answer import answer
from crossbench.report.axes import varying
from crossbench.report.best import best_cells
from crossbench.report.cells import Estimate, Run
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import write_sweep_report
from crossbench.report.sweep_tables import estimate_text
from crossbench.report.verdicts import SweepVerdicts, sweep_verdicts
from crossbench.results import RunResult, Status, save_result
from crossbench.types import Task
from tests.helpers.reports import CHANGES, run

KEPT = {
    "quality/ndcg_at_10_change": -0.002,
    "quality/ndcg_at_10_change_low": -0.006,
    "quality/ndcg_at_10_change_high": 0.001,
}

JITTER = (0.0, 0.01, -0.006, 0.004)


def repeated(
    pairs_per_s: float,
    blocks: Sequence[int] = (1, 2, 3, 4),
    *,
    backend: str,
    task: Task = Task.SCORE,
    paced: bool = False,
) -> list[Run]:
    """A cell's runs in these blocks, each of which slows or speeds all cells."""
    drift = {1: 1.0, 2: 0.97, 3: 1.04, 4: 0.5}
    own = ord(backend[0])
    return [
        run(
            pairs_per_s * drift[block] * (1 + JITTER[(own + block) % len(JITTER)]),
            repeat=block,
            backend=backend,
            task=task,
            paced=paced,
        )
        for block in blocks
    ]


def first_lines(runs: Sequence[Run], bound_ms: float | None = None) -> str:
    cells = summarise_cells(runs)
    axes = varying([item.result.config for item in runs])
    return answer(cells, axes, bound_ms, sweep_verdicts(cells))


def verdicts_of(runs: Sequence[Run]) -> SweepVerdicts:
    return sweep_verdicts(summarise_cells(runs))


def test_a_failed_run_in_a_slow_block_bends_neither_the_values_nor_the_order() -> None:
    slower = repeated(1000, (1, 2, 3), backend="onnx")  # its run in the slow block failed
    faster = repeated(1070, backend="packed")
    cells = {cell.label: cell for cell in summarise_cells([*slower, *faster])}
    ratio = cells["packed"].throughput.value / cells["onnx"].throughput.value  # type: ignore[union-attr]
    assert ratio == pytest.approx(1.07, rel=0.01)
    found = sweep_verdicts(list(cells.values())).throughput
    assert [cell.label for cell in found.best_first(found.cells)] == ["packed", "onnx"]


def test_a_star_needs_that_every_other_cell_is_shown_to_be_worse() -> None:
    # a and c have no block in common but one, so that they cannot be compared
    runs = [
        *repeated(1200, (1, 2, 3), backend="a"),
        *repeated(1100, (1, 2, 3, 4), backend="b"),
        *repeated(1000, (3, 4), backend="c"),
    ]
    cells = summarise_cells(runs)
    verdicts = sweep_verdicts(cells)
    a, b, c = cells
    assert verdicts.throughput.better(a, b)
    contrast = verdicts.throughput.between(a, c)
    assert contrast is not None
    assert contrast.difference is Difference.UNKNOWN
    assert [cell.label for cell in best_cells(cells, verdicts).fastest] == ["a", "c"]
    assert "may be the fastest" in first_lines(runs)


def test_two_repeats_use_the_allowance() -> None:
    runs = [*repeated(1000, (1, 2), backend="a"), *repeated(1100, (1, 2), backend="b")]
    assert not verdicts_of(runs).spread_is_measured
    assert "The repeats are too few to show the spread, so" in first_lines(runs)
    assert all(cell.throughput.half_width is None for cell in summarise_cells(runs))  # type: ignore[union-attr]


def test_open_loops_show_their_spread_by_their_p95() -> None:
    runs = [
        *repeated(1000, backend="a", paced=True),
        *repeated(1000, backend="b", paced=True),
    ]
    verdicts = verdicts_of(runs)
    assert not verdicts.throughput.cells
    assert verdicts.spread_is_measured


def test_values_of_tables_are_those_of_verdicts() -> None:
    cells = summarise_cells([*repeated(1000, backend="a"), *repeated(1100, backend="b")])
    for cell in cells:
        assert cell.p95 is not None
        assert cell.metrics["latency/p95_ms"] == cell.p95.value


def test_the_first_line_is_about_the_latency_bound() -> None:
    fast = [run(1000, 80.0, batch=8, repeat=repeat) for repeat in (1, 2, 3)]
    slow = [run(400, 20.0, batch=2, repeat=repeat) for repeat in (1, 2, 3)]
    slower = [run(200, 10.0, batch=1, repeat=repeat) for repeat in (1, 2, 3)]
    first = first_lines([*fast, *slow, *slower], bound_ms=25.0).splitlines()[0]
    assert first.startswith("- **Best throughput with p95 up to 25.0 ms:** batch=2")


def test_a_sweep_without_a_model_says_so_once() -> None:
    runs = [run(1000, backend="noop", batch=2), run(2500, backend="noop", batch=4)]
    text = first_lines(runs)
    assert "Compared with the baseline batch=2, faster: batch=4 (2.50×)." in text
    assert "No cell ran a model" in text
    assert "Excluded" not in text
    assert "Each cell was measured once, so" in text


def test_the_number_of_repeats_is_not_derived_from_an_assumed_spread(tmp_path: Path) -> None:
    for place, item in enumerate((run(100, backend="a"), run(105, backend="b"))):
        (tmp_path / str(place)).mkdir()
        save_result(item.result, tmp_path / str(place))
    text = write_sweep_report(tmp_path).read_text()
    assert "cannot tell" in text
    assert "over 100" not in text
    assert "`repeats=4` would measure the spread" in text


def test_a_wide_interval_is_given_by_its_ends() -> None:
    assert estimate_text(Estimate(359.0, 300.0, 9689.0)) == "359 (59.0 to 10,048)"
    assert estimate_text(Estimate(359.0, 20.0, 21.0)) == "359 ± 21"


def test_repeats_without_a_number_are_one_block() -> None:
    runs = [run(rate, backend=name, repeat=1) for rate in (100, 104, 98) for name in ("a", "b")]
    assert verdicts_of(runs).blocks == 1
    assert "Each cell was measured once" in first_lines(runs)


def test_blocks_of_two_studies_are_not_the_same() -> None:
    runs = [run(100, backend=name, study=study) for study in ("x?", "y?") for name in ("a", "b")]
    assert verdicts_of(runs).blocks == 2


@pytest.mark.parametrize("bound_ms", [None, 1e6])
def test_cells_that_embed_are_not_compared_with_cells_that_score(bound_ms: float | None) -> None:
    runs = [
        *repeated(1000, backend="a"),
        *repeated(400, backend="b"),
        *repeated(2000, backend="a", task=Task.EMBED),
    ]
    text = first_lines(runs, bound_ms)
    assert "a task=score is faster than b task=score" in text
    assert "(counts texts, not pairs)" in text
    best = next(item for item in recommend(runs, bound_ms) if item.topic.startswith("Best"))
    assert "embed" not in str(best.advice)


def test_a_cell_that_changes_the_ranking_is_not_the_default_baseline() -> None:
    runs = [run(300, backend="wild", **CHANGES), run(100, backend="b"), run(320, backend="c")]
    baseline = verdicts_of(runs).baseline
    assert baseline is not None
    assert baseline.label == "b"


def test_the_first_lines_say_that_the_named_baseline_failed() -> None:
    named = {"backend": "gone"}
    runs = [
        run(0, backend="gone", status=Status.FAILED, baseline=named),
        run(100, backend="b", baseline=named),
        run(300, backend="c", baseline=named),
    ]
    assert "The baseline (backend=gone) has no result that can be compared" in first_lines(runs)


def test_a_throughput_of_zero_is_no_throughput(tmp_path: Path) -> None:
    runs = [run(100, backend="a"), run(200, backend="b"), run(100, backend="zero")]
    metrics = {**runs[2].result.metrics, "throughput/pairs_per_s": 0.0}
    config, cell_id = runs[2].result.config, runs[2].result.cell_id
    zero = RunResult(Status.FINISHED, config, cell_id, metrics=metrics)
    for place, result in enumerate((runs[0].result, runs[1].result, zero)):
        (tmp_path / str(place)).mkdir()
        save_result(result, tmp_path / str(place))
    text = write_sweep_report(tmp_path).read_text()
    assert "no request was answered" in text


def test_less_memory_is_said_only_if_it_is_shown() -> None:
    def cell(quant: str, peaks_mb: Sequence[float]) -> list[Run]:
        return [
            run(100, quant=quant, repeat=repeat, **KEPT, **{"memory/rss_peak_mb": peak_mb})
            for repeat, peak_mb in enumerate(peaks_mb, 1)
        ]

    noisy = [*cell("fp32", (400, 900, 500)), *cell("int8", (600, 300, 450))]
    clear = [*cell("fp32", (400, 404, 402)), *cell("int8", (200, 203, 201))]
    for runs, said in ((noisy, False), (clear, True)):
        found = next(item for item in recommend(runs, None) if item.topic.startswith("Gain"))
        assert ("Less" in str(found.advice)) is said


def test_intervals_of_a_sweep_that_was_looked_at_state_their_level(tmp_path: Path) -> None:
    runs = [*repeated(1000, backend="a"), *repeated(1100, backend="b")]
    for place, item in enumerate(runs):
        document = {**item.result.config.document, "until_decided": True, "max_repeats": 12}
        looked = RunResult(
            Status.FINISHED, type(item.result.config)(document), "", metrics=item.result.metrics
        )
        (tmp_path / str(place)).mkdir()
        save_result(looked, tmp_path / str(place))
    text = write_sweep_report(tmp_path).read_text()
    assert "(95 % over all looks after its blocks)" in text
    assert "hold together at 95 %" not in text
