"""The cells of a sweep are compared on the same queries, and a repeat relies on the first check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import crossbench
from crossbench.analysis import notebook
from crossbench.measure.catalogue import NDCG_AT_10
from crossbench.measure.ranking import Verdict, judge
from crossbench.measure.ranking_metrics import quality_metrics
from crossbench.quality.earlier import earlier_check
from crossbench.report.markdown import markdown
from crossbench.report.ranking import sweep_quality
from crossbench.report.ranking_plot import quality_plot
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import read_runs
from crossbench.results import RunResult, Status, load_queries, save_queries, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.types import QueryQuality


def query(number: int, ndcg: float, drift: float) -> QueryQuality:
    return QueryQuality(
        query_id=f"q{number}", pairs=20, relevant=True, order_matters=True, ndcg=ndcg, rr=1.0,
        reference_ndcg=0.8, max_abs_diff=drift, mean_abs_diff=drift / 2, tau=1.0,
        top10_overlap=None, same_order=ndcg == 0.8,
    )  # fmt: skip


def save_cell(
    folder: Path, backend: str, queries: list[QueryQuality], repeat: int = 1, **quality: Any
) -> RunResult:
    config = {"backend": {"_target_": f"made.{backend}", "name": backend}, "repeat": repeat}
    metrics = quality_metrics(queries, seed=0) if queries else {}
    summary: dict[str, Any] = {"verdict": "not checked", "reason": "", "check": "sample"}
    if queries:
        found = judge(queries, metrics)
        summary |= {
            "verdict": found.verdict.value, "reason": found.reason, "queries_chosen": 50,
            "queries_scored": len(queries), "passages_a_query": 20,
        }  # fmt: skip
    metrics |= {"throughput/pairs_per_s": 100.0, "latency/p95_ms": 5.0}
    made = RunResult(
        Status.FINISHED, CellConfig(config), CellConfig(config).cell_id, metrics=metrics,
        quality=summary | quality, dataset={"digest": "d"},
    )  # fmt: skip
    folder.mkdir()
    save_result(made, folder)
    if queries:
        save_queries(queries, folder)
    return made


def test_query_qualities_are_stored_exactly(tmp_path: Path) -> None:
    found = [query(1, 0.8, 0.25), replace(query(2, 0.1, 0.5), ndcg=None, same_order=None)]
    save_queries(found, tmp_path)
    assert load_queries(tmp_path) == found
    assert load_queries(tmp_path / "nowhere") == []


def test_cells_are_compared_on_the_queries_that_all_scored(tmp_path: Path) -> None:
    ndcgs = np.where(np.arange(40) < 15, 0.8, 0.4)  # the later queries lose half
    lossy = [query(number, float(ndcg), 0.1) for number, ndcg in enumerate(ndcgs)]
    save_cell(tmp_path / "0", "fast", lossy)
    save_cell(tmp_path / "1", "slow", [query(number, 0.8, 0.1) for number in range(15)])
    save_cell(tmp_path / "2", "slowest", [query(number, 0.8, 0.1) for number in range(4)])
    fast, slow, slowest = runs = read_runs(tmp_path)
    assert fast.result.metrics["quality/queries"] == 15
    assert fast.result.metrics["quality/ndcg_at_10"] == pytest.approx(0.8)
    assert fast.result.quality["verdict"] == Verdict.SAME_ORDER
    assert "same order on all 15 checked queries" in fast.result.quality["reason"]
    assert slow.result.metrics["quality/queries"] == 15
    assert slow.result.metrics["throughput/pairs_per_s"] == 100
    assert "quality/ndcg_at_10" not in slowest.result.metrics
    text = markdown(sweep_quality(summarise_cells(runs)))
    assert "All cells are compared on the first 15 queries" in text
    assert "scored up to 40" in text
    assert "not compared in nDCG@10: slowest" in text


def quality_svg(frame: pd.DataFrame, folder: Path) -> str:
    """The plot of nDCG@10 of these cells, as the notebook draws it."""
    cells = summarise_cells(notebook.runs_of(frame))
    (draw,) = quality_plot(cells, ["backend"], NDCG_AT_10, folder).values()
    return draw().with_suffix(".svg").read_text()


def test_notebooks_show_ndcg_of_the_same_queries_for_all_cells(tmp_path: Path) -> None:
    lossy = [query(number, 0.8 if number < 15 else 0.4, 0.1) for number in range(40)]
    save_cell(tmp_path / "0", "fast", lossy)
    save_cell(tmp_path / "1", "slow", [query(number, 0.8, 0.1) for number in range(15)])
    frame = crossbench.load_sweep(tmp_path)
    assert frame["quality/ndcg_at_10"].tolist() == pytest.approx([0.55, 0.8])  # as measured
    table = notebook.quality_table(frame)
    assert table["ndcg_at_10"].tolist() == pytest.approx([0.8, 0.8])
    assert table["queries"].tolist() == [15, 15]
    assert "<!-- Over the same 15 queries" in quality_svg(frame, tmp_path)
    # A tracking server has no values of single queries, so the plot says that they differ
    frame["folder"] = ["sweep/0", "sweep/1"]
    svg = quality_svg(frame, tmp_path)
    assert "<!-- Not comparable: over 15 to 40 queries, depending on the cell" in svg


def test_other_queries_are_left_alone(tmp_path: Path) -> None:
    save_cell(tmp_path / "0", "a", [query(number, 0.8, 0.1) for number in range(12)])
    other = [query(0, 0.8, 0.1), *(query(number, 0.8, 0.1) for number in range(50, 69))]
    save_cell(tmp_path / "1", "b", other)
    assert [run.result.metrics["quality/queries"] for run in read_runs(tmp_path)] == [12, 20]


def test_the_same_scores_are_named_instead_of_a_row_of_zeros(tmp_path: Path) -> None:
    save_cell(tmp_path / "0", "a", [query(number, 0.8, 1e-6) for number in range(12)],
              same_scores=True)  # fmt: skip
    save_cell(tmp_path / "1", "b", [query(number, 0.8, 0.1) for number in range(12)])
    text = markdown(sweep_quality(summarise_cells(read_runs(tmp_path))))
    row = next(line for line in text.splitlines() if line.startswith("| a "))
    assert "same order, same scores" in row
    assert "1.0e-06" not in row
    assert "differ by at most 1.0e-06, which is rounding" in text


def test_a_repeat_relies_on_the_check_of_an_earlier_one(tmp_path: Path) -> None:
    queries = [query(number, 0.8, 0.1) for number in range(12)]
    first = save_cell(tmp_path / "0", "a", queries)
    later = CellConfig({**first.config.document, "repeat": 2})
    (tmp_path / "1").mkdir()
    assert earlier_check(tmp_path / "1", later) == "0"
    assert earlier_check(tmp_path / "0", first.config) == ""  # itself
    assert earlier_check(tmp_path / "1", CellConfig({**later.document, "batch": 8})) == ""
    assert earlier_check(tmp_path / "1", CellConfig({**later.document, "repeat": 0})) == ""
    (tmp_path / "1").rmdir()
    save_cell(tmp_path / "1", "a", [], repeat=2, checked_in="0")
    (cell,) = summarise_cells(read_runs(tmp_path))
    assert cell.verdict is Verdict.SAME_ORDER
    assert cell.metrics["quality/ndcg_at_10"] == pytest.approx(0.8)
    assert "Each cell was checked once" in markdown(sweep_quality([cell]))
