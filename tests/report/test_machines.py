"""Reports of sweeps that several machines measured."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossbench.measure.contrasts import Difference
from crossbench.report.advice.recommendations import recommend
from crossbench.report.answer import answer
from crossbench.report.cells import Run
from crossbench.report.machines import machines_note, machines_section, with_kinds
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import write_csv
from crossbench.report.terminal import terminal_answer, terminal_table
from crossbench.report.verdicts import sweep_verdicts
from tests.helpers.reports import run

XEON = {"cpu": "Xeon 8481C", "machine": "x86_64", "cores_usable": 8, "memory_total_mb": 32000}
GRAVITON = {"cpu": "Graviton3", "machine": "aarch64", "cores_usable": 16, "memory_total_mb": 64000}


def on(host: str, kind: Mapping[str, Any], made: Run) -> Run:
    """The run, measured on a machine of this name and kind."""
    environment = {"host": host, **kind}
    return replace(made, result=replace(made.result, environment=environment))


@pytest.fixture
def unlike() -> list[Run]:
    """Two cells on one machine, and one on an unlike one."""
    return with_kinds([
        on("intel-1", XEON, run(100, batch=8)),
        on("intel-1", XEON, run(200, batch=16)),
        on("arm-1", GRAVITON, run(400, batch=32)),
    ])  # fmt: skip


def test_one_machine_needs_no_table() -> None:
    runs = with_kinds([on("intel-1", XEON, run(100, batch=batch)) for batch in (8, 16)])
    assert machines_section(runs) == machines_note(runs) == ""
    assert {each.kind for each in runs} == {""}


def test_cells_on_unlike_machines_are_not_compared(unlike: list[Run]) -> None:
    cells = summarise_cells(unlike)
    verdicts = sweep_verdicts(cells)
    same = verdicts.throughput.between(cells[1], cells[0])
    other = verdicts.throughput.between(cells[2], cells[0])
    assert same is not None
    assert same.difference is Difference.HIGHER
    assert other is not None
    assert other.difference is Difference.UNKNOWN
    assert other.low is None
    assert verdicts.throughput.text(other) == "not compared: never measured together"
    text = answer(cells, ["batch"], None, verdicts)
    assert "2 cells may be the fastest" in text  # the slower one of the first machine is not
    assert "never measured in the same block, so they cannot be compared" in text
    assert "4.00" not in text


def test_the_report_names_machines_and_says_that_they_are_unlike(unlike: list[Run]) -> None:
    note = machines_note(unlike)
    assert note.startswith("**Unlike machines:** the cells were measured on 2 machines of 2 kinds")
    assert "repeats=3" in note
    section = " ".join(machines_section(unlike).split())
    assert "| intel-1 | Xeon 8481C | 8 | 32.0 | – | 2 cells |" in section
    assert "| arm-1 | Graviton3 | 16 | 64.0 | – | 1 cell |" in section


def test_like_machines_are_compared_and_the_report_says_so() -> None:
    runs = with_kinds([
        on("intel-1", XEON, run(100, batch=8)), on("intel-2", XEON, run(200, batch=16)),
    ])  # fmt: skip
    cells = summarise_cells(runs)
    found = sweep_verdicts(cells).throughput.between(cells[1], cells[0])
    assert found is not None
    assert found.difference is Difference.HIGHER
    assert machines_note(runs).startswith("**2 machines of one kind:** the cells were measured on")


def test_blocks_on_unlike_machines_are_each_compared_within() -> None:
    """The second machine is four times as fast, and the ratio of the cells is the same on both."""
    runs = [
        on(host, kind, run(value * speed, batch=batch, repeat=repeat))
        for repeat, (host, kind, speed) in enumerate(
            [("intel-1", XEON, 1.0), ("arm-1", GRAVITON, 4.0), ("intel-1", XEON, 1.02),
             ("arm-1", GRAVITON, 4.04)], start=1,
        )
        for batch, value in ((8, 100.0), (16, 150.0))
    ]  # fmt: skip
    runs = with_kinds(runs)
    cells = summarise_cells(runs)
    found = sweep_verdicts(cells).throughput.between(cells[1], cells[0])
    assert found is not None
    assert found.ratio == pytest.approx(1.5)
    assert found.difference is Difference.HIGHER
    assert "block 1: 2 runs; block 3: 2 runs" in machines_section(runs)


def test_a_block_that_went_on_elsewhere_is_split(unlike: list[Run]) -> None:
    runs = [
        on("intel-1", XEON, run(100, batch=8, repeat=1)),
        on("arm-1", GRAVITON, run(600, batch=16, repeat=1)),
        on("arm-1", GRAVITON, run(400, batch=8, repeat=2)),
        on("arm-1", GRAVITON, run(600, batch=16, repeat=2)),
    ]
    cells = summarise_cells(with_kinds(runs))
    found = sweep_verdicts(cells).throughput.between(cells[1], cells[0])
    assert found is not None
    assert found.ratio == pytest.approx(1.5)  # of the block that is whole


def test_nothing_is_recommended_over_unlike_machines(unlike: list[Run]) -> None:
    (only,) = recommend(unlike, None)
    assert only.advice is None
    assert "unlike machines" in only.evidence[0]
    assert "Unlike machines: the cells were measured on" in " ".join(
        terminal_answer(unlike).split()
    )
    assert "★" not in terminal_table([each.result for each in unlike])


def test_results_csv_has_the_machine_of_each_run(unlike: list[Run], tmp_path: Path) -> None:
    write_csv(unlike, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        assert [row["machine"] for row in csv.DictReader(file)] == ["intel-1", "intel-1", "arm-1"]
