"""A sweep's report begins with what to serve, what it gains, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.report.advice.candidates import select_candidates
from crossbench.report.cell import write_cell_report
from crossbench.report.cells import Run
from crossbench.report.decision import decision
from crossbench.report.markdown import markdown
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import write_sweep_report
from crossbench.report.verdicts import sweep_verdicts
from crossbench.results import RunResult, Status, save_result
from tests.helpers.plans import config_of
from tests.helpers.reports import CHANGES, KEEPS, run


def decided(runs: Sequence[Run], bound_ms: float | None = None) -> dict[str, str]:
    """The rows of the decision by their names."""
    cells = summarise_cells(runs)
    sections = decision(select_candidates(cells), bound_ms, sweep_verdicts(cells))
    rows = [line.split("|") for line in markdown(sections).splitlines() if line.startswith("| **")]
    return {row[1].strip(" *"): "|".join(row[2:-1]).strip() for row in rows}


def four(pairs_per_s: float, p95_ms: float | None = None, **options: object) -> list[Run]:
    """Four repeats that differ by about 1 %."""
    spread = (1.0, 1.012, 0.991, 1.004)
    return [
        run(pairs_per_s * factor, p95_ms, repeat=number, **options)  # type: ignore[arg-type]
        for number, factor in enumerate(spread, start=1)
    ]


MEMORY = {"memory/rss_peak_mb": 500.0}


def test_a_winner() -> None:
    rows = decided(
        [
            *four(1000, backend="packed", **MEMORY),
            *four(1500, backend="onnx", quant="int8", **KEEPS, **{"memory/rss_peak_mb": 200.0}),
        ]
    )
    assert rows["serve"].startswith("**onnx int8**: 1,50")
    assert rows["gain"].startswith("1.50× (1.")
    assert rows["gain"].endswith("the baseline packed fp32: faster")
    assert rows["memory"] == "200 MB at its peak; baseline: 500 MB"
    assert rows["ranking"] == "keeps"
    assert rows["how sure"].startswith("4 repeats of each cell. A difference in throughput can be")
    assert "no bound was given" in rows["latency"]
    assert "cost" not in rows


def test_cells_that_cannot_be_told_apart_are_named() -> None:
    rows = decided(
        [
            *(run(1000 * f, repeat=n, backend="a", **MEMORY) for n, f in enumerate((1, 1.2, 0.8))),
            *(run(1100 * f, repeat=n, backend="b", **MEMORY) for n, f in enumerate((0.8, 1, 1.3))),
        ]
    )
    assert rows["serve"].startswith("**which of 2 cells is the fastest cannot be told:** **b**, ")
    assert rows["serve"].endswith("pairs/s; a")
    assert "cannot tell" in rows["gain"]


def test_cells_that_are_the_same_within_the_margin() -> None:
    steady = (1.0, 1.0005, 0.9995, 1.0002)
    runs = [
        run(1000 * factor, repeat=number, backend=name, **MEMORY)
        for name in ("a", "b")
        for number, factor in enumerate(steady)
    ]
    assert "as fast, within the margin: " in decided(runs)["serve"]


def test_the_bound_decides_which_cell_is_served() -> None:
    runs = [*four(1000, 80.0, batch=8, **MEMORY), *four(400, 20.0, batch=2, **MEMORY)]
    rows = decided(runs, bound_ms=25.0)
    assert rows["serve"].startswith("**batch=2**")
    assert rows["latency"].startswith("p95 20")
    assert rows["latency"].endswith("the bound of 25.0 ms is kept")
    assert rows["gain"].startswith("0.40×")


def test_a_bound_inside_the_interval_of_the_p95_is_not_surely_kept() -> None:
    unsteady = [
        run(400, p95_ms, batch=2, repeat=number, **MEMORY)
        for number, p95_ms in enumerate((18.0, 22.0, 19.0, 21.0))
    ]
    rows = decided([*four(1000, 80.0, batch=8, **MEMORY), *unsteady], bound_ms=21.0)
    assert rows["latency"].endswith("kept by the estimate, but its interval reaches beyond it")


def test_no_cell_keeps_the_bound() -> None:
    runs = [*four(1000, 80.0, batch=8), *four(400, 20.0, batch=2)]
    cells = summarise_cells(runs)
    (text,) = decision(select_candidates(cells), 5.0, sweep_verdicts(cells))
    assert str(text).startswith("**No cell keeps its p95 within 5.00 ms.** The closest is batch=2")


def test_cost_and_capacity_stand_in_it_if_there_is_a_price() -> None:
    cost = {"cost/per_million_pairs": 5.0, "throughput/million_pairs_per_day": 86.4}
    rows = decided([*four(1000, backend="a", **cost), *four(400, backend="b", **cost)])
    assert rows["cost"] == "5.00 per million pairs; at most 86.4 million a day"


def test_there_is_nothing_to_decide() -> None:
    one = four(1000)
    paced = [*four(1000, backend="a", paced=True), *four(1000, backend="b", paced=True)]
    changed = [*four(1000), *four(2000, quant="int8", **CHANGES)]
    no_model = [*four(1000, backend="noop", batch=2), *four(1000, backend="noop", batch=4)]
    for runs in (one, paced, changed, no_model):
        assert not decided(runs)


def test_the_report_has_the_command_that_serves_the_winner(tmp_path: Path) -> None:
    for number, (batch, pairs_per_s) in enumerate(((16, 100), (64, 300))):
        measured = run(pairs_per_s).result
        config = config_of("backend=packed", "pool=processes", f"batch={batch}")
        folder = tmp_path / str(number)
        folder.mkdir()
        save_result(RunResult(Status.FINISHED, config, config.cell_id, metrics=measured.metrics,
                              series=measured.series), folder)  # fmt: skip
    text = write_sweep_report(tmp_path).read_text()
    assert "\n    python -m crossbench.serve backend=packed pool=processes\n" in text
    first_lines = [line for line in text.splitlines() if line][:3]
    assert first_lines[1].startswith("| decision")
    assert text.index("## Findings") < text.index("## All cells") < text.index("## Recommendations")
    cell = write_cell_report(tmp_path / "1").read_text()
    again = "python -m crossbench backend=packed pool=processes batch=64"
    assert f"names what differs from the defaults.\n\n    {again}\n\n<details>\n" in cell
