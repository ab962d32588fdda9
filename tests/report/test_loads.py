"""Reports follow the load: rates, ramps, flags, and percentiles of too few requests."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossbench.load.schedule import Schedule
from crossbench.measure.steps import Step
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.advice.recommendations import recommend, recommendations
from crossbench.report.axes import axis_title, varying
from crossbench.report.best import best_cells
from crossbench.report.cell import write_cell_report
from crossbench.report.cells import Estimate, Run
from crossbench.report.rate_answer import rate_answers, series_answers
from crossbench.report.rates import Level, Series
from crossbench.report.scope import interval_scope
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import read_runs, write_sweep_report
from crossbench.report.terminal import terminal_answer, terminal_table
from crossbench.report.verdicts import sweep_verdicts
from crossbench.results import Flag, save_records, save_result
from crossbench.settings.cell_config import CellConfig
from tests.helpers.loads import CLOSED, REASONS, open_loop, poisson, run
from tests.helpers.records import record


def rates(bound_ms: float | None = None, backend: str = "onnx") -> list[Run]:
    """Two rates that the server holds, one above its capacity."""
    return [
        run("0", open_loop(5, 100, 200), poisson(5), bound_ms=bound_ms, backend=backend),
        run("1", open_loop(10, 200, 200, 1), poisson(10), bound_ms=bound_ms, backend=backend),
        run("2", open_loop(12, 900, 40, 2), poisson(20), Flag.OVER_SATURATED, bound_ms=bound_ms,
            backend=backend),
    ]  # fmt: skip


def save(folder: Path, runs: Sequence[Run]) -> None:
    for item in runs:
        (folder / item.name).mkdir(parents=True)
        save_result(item.result, folder / item.name)
        save_records(item.records, folder / item.name)
        if item.result.config.value("load") != "closed":
            due_s = np.array([r.due_s for r in item.records])
            Schedule(due_s).save(folder / item.name)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_sweep_over_rates_begins_with_the_rate_that_holds(tmp_path: Path) -> None:
    save(tmp_path, rates(bound_ms=250))
    report = write_sweep_report(tmp_path).read_text()
    answer = report.splitlines()[2]
    assert re.match(
        r"\*\*Highest rate with a p95 under 250 ms: 10 requests/s\*\* \(p95 2\d\d ms, 95 % "
        r"interval of this run [\d.]+ … [\d.]+ ms\); at 20 requests/s the server is "
        r"over-saturated and sustained \d+\.\d requests/s\.$",
        answer,
    )
    runs = read_runs(tmp_path)
    assert flat(terminal_answer(runs)).startswith(answer.replace("**", ""))
    assert max(map(len, terminal_answer(runs).splitlines())) <= 80
    assert "| `load.rate` (requests/s offered) | 5, 10, 20" in report
    assert "| rate (req/s) |" in report
    assert "answered (requests/s)" in report
    assert "fastest" not in report  # throughput is that of the load
    assert f"> **Over-saturated:** rate=20: {REASONS[Flag.OVER_SATURATED]}" in report
    assert report.count(REASONS[Flag.OVER_SATURATED]) == 1  # the warning does not repeat it
    assert "by requests/s offered](plots/by_load_rate.png)" in report
    assert "frontier.png" not in report
    assert "is the largest value tried" not in report
    (topic,) = (r for r in recommend(runs, 250) if r.topic.startswith("Highest rate"))
    assert topic.advice == answer.replace("**", "")
    rows = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8")))
    assert [row["flags"] for row in rows] == ["", "", "over-saturated"]
    assert float(rows[2]["latency/p95_ms"]) > 900


def test_a_rate_is_only_said_to_hold_if_the_interval_is_under_the_bound() -> None:
    def level(rate: float, p95: float, half: float | None, n: int = 200, *flags: Flag) -> Level:
        return Level(rate, rate, Estimate(p95, half, half), n, flags)

    def answer(*levels: Level) -> str:
        (line,) = series_answers([Series("", levels)], 1000)
        return line

    sure = answer(level(1, 500, 50), level(2, 980, 50), level(4, 3000, 100))
    assert sure.startswith(
        "**Highest rate that is sure to have a p95 under 1,000 ms: 1 request/s**"
    )
    assert "at 2 requests/s it cannot be said: p95 980 ms" in sure
    assert "contains the bound: a longer run narrows it" in sure
    assert "at 4 requests/s, p95 3,000 ms (95 % interval of this run 2,900 … 3,100 ms)" in sure
    few = answer(level(0.5, 500, None, 30))
    assert few.startswith("**Cannot say which rate has a p95 under 1,000 ms**: at 0.5 requests/s")
    assert "p95 ~500 ms is from only 30 requests: its interval needs 100, and usually 300" in few
    assert "(max_seconds=600)" in few
    assert "p95 500 ms has no interval" in answer(
        level(1, 500, None)
    )  # enough requests, but they depend on each other
    assert answer(level(1, 2000, 9)).startswith("**No measured rate has a p95 under 1,000 ms**")
    assert "it may hold more" in answer(level(1, 500, 9))
    assert "(p95 500 ms, 95 % interval of this run 491 … 509 ms, disturbed)" in answer(
        level(1, 500, 9, 200, Flag.DISTURBED)
    )


def test_without_a_bound_each_rate_has_its_p95_and_each_backend_its_line() -> None:
    runs = [*rates(), *(Run(f"b{r.name}", r.result, r.records) for r in rates(backend="packed"))]
    cells = summarise_cells(runs)
    axes = varying([item.result.config for item in runs])
    first, second, hint = rate_answers(cells, axes, None)
    assert first.startswith("onnx: **Highest rate that the server sustained: 10 requests/s**: at 5")
    assert second.startswith("packed: **Highest rate")
    assert "report.latency_bound_ms" in hint
    reason = "- Which backend is faster: in an open loop below capacity, throughput is that of the"
    assert reason in recommendations(runs)


def ramp_of_rates(bound_ms: float | None) -> Run:
    steps = [Step("rate=5", 0, 40), Step("rate=20", 40, 80), Step("rate=90", 80, 120)]
    slow = [
        record(due := 40 + i / 12, due + 0.2 + i * 0.02, index=200 + i) for i in range(60)
    ]  # fmt: skip
    first = [r for r in open_loop(5, 100, 300) if r.due_s < 40]
    load = {"name": "ramp", "labels": ["load", "load.of", "load.levels"], "of": "rate",
            "levels": [5, 20, 90]}  # fmt: skip
    return run("0", [*first, *slow], load, Flag.OVER_SATURATED, steps=steps, bound_ms=bound_ms)


def test_a_ramp_of_rates_answers_from_its_steps(tmp_path: Path) -> None:
    save(tmp_path, [ramp_of_rates(250)])
    text = write_cell_report(tmp_path / "0").read_text()
    answer = text.splitlines()[2]
    assert answer.startswith("**Highest rate with a p95 under 250 ms: 5 requests/s** (p95 1")
    assert "at 20 requests/s the server is over-saturated" in answer
    assert re.search(r"\| rate=20 .*\| +↑[\d,]+ .*\| over-saturated \|", text)
    assert re.search(r"\| rate=90 .* \| not reached +\|", text)
    assert "![Requests due and answered](plots/due_and_answered.png)" in text
    assert terminal_answer(read_runs(tmp_path)).startswith("Highest rate with a p95 under 250 ms")
    assert "a ramp of several loads" not in write_sweep_report(tmp_path).read_text()


def test_a_ramp_of_concurrency_names_its_fastest_step(tmp_path: Path) -> None:
    steps = [Step("concurrency=1", 0, 10), Step("concurrency=2", 10, 20)]
    one = [record(i / 10, i / 10 + 0.1, index=i, infer_ms=99) for i in range(100)]
    two = [record(10 + i / 20, 10 + i / 20 + 0.1, index=100 + i, infer_ms=99) for i in range(200)]
    load = {"name": "ramp", "labels": ["load"], "of": "concurrency", "levels": [1, 2]}
    save(tmp_path, [run("0", [*one, *two], load, steps=steps)])
    text = write_cell_report(tmp_path / "0").read_text()
    assert re.search(r"\nHighest throughput at concurrency=2: (199|20\d) pairs/s", text)
    assert "| requests in flight |" in text


@pytest.fixture
def flagged() -> list[Run]:
    """Closed loops of three backends, of which the fastest was disturbed."""
    return [
        run(str(i), open_loop(5 * (i + 1), 100, 200, i), CLOSED, *flags, backend=f"engine-{i}",
            **{"throughput/pairs_per_s": 50.0 * (i + 1)})
        for i, flags in enumerate([(), (Flag.CLIENT_BOUND,), (Flag.DISTURBED,)])
    ]  # fmt: skip


def test_flags_in_the_terminal_fit_80_columns(flagged: list[Run]) -> None:
    runs = [*flagged, *rates()]
    table = terminal_table([item.result for item in runs])
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"engine-1 .* C +100 ", table)
    assert re.search(r"engine-2 .* D +★ 150 ", table)
    assert re.search(r"onnx .* 20 +S .* ↑\d+ .*↑", table)
    assert "D disturbed: other work on the machine" in table
    assert REASONS[Flag.DISTURBED] in flat(table)
    assert "↑ grew for as long as the run lasted" in table


def test_flags_in_the_reports(tmp_path: Path, flagged: list[Run]) -> None:
    save(tmp_path, flagged)
    text = write_sweep_report(tmp_path).read_text()
    assert "- **engine-2 is faster than both other cells** (1.50 to 3.00×): 150 pairs/s" in text
    assert "(disturbed)" in text.split("> **Disturbed:**")[0]  # the decision
    assert "| finished, client-bound |" in text
    assert f"> **Disturbed:** engine-2: {REASONS[Flag.DISTURBED]} Measure it again" in text
    assert "Disturbed: other work on the machine took part of its time." in text  # the legend
    assert f"It was disturbed: {REASONS[Flag.DISTURBED]}" in text  # the recommendation
    cell = write_cell_report(tmp_path / "2").read_text()
    assert cell.splitlines()[4] == (
        "> **Disturbed:** Other processes used 1.4 of 2 cores. Measure it again on a quiet machine."
    )
    flagged[2].result.warnings.append(f"Disturbed: {REASONS[Flag.DISTURBED]} End the other work")
    save_result(flagged[2].result, tmp_path / "2")
    advice = "> **Disturbed:** Other processes used 1.4 of 2 cores. End the other work."
    assert advice in write_cell_report(tmp_path / "2").read_text()
    for plot in ("by_cell", "frontier"):
        svg = (tmp_path / "plots" / f"{plot}.svg").read_text()
        assert "<!-- disturbed -->" in svg
        assert "<!-- client-bound -->" in svg
        assert "<!-- over-saturated -->" not in svg


def test_an_over_saturated_cell_is_ranked_nowhere(tmp_path: Path) -> None:
    runs = [
        run("0", open_loop(5, 100, 200), CLOSED, backend="a"),
        run("1", open_loop(4, 200, 200), CLOSED, backend="b"),
        run("2", open_loop(20, 10, 200), CLOSED, Flag.OVER_SATURATED, backend="c"),
    ]
    cells = summarise_cells(runs)
    candidates = select_candidates(cells)
    assert candidates.excluded["c"] == "over-saturated"
    best = best_cells(cells, sweep_verdicts(cells))
    assert [cell.label for cell in best.fastest] == ["a", "b"]  # a is first, but may not be it
    assert best.lowest_p95 == (cells[0],)
    assert cells[2].p95 is not None  # it is shown
    assert cells[2].ranked_p95 is None
    save(tmp_path, runs)
    text = write_sweep_report(tmp_path).read_text()
    assert "(over-saturated)" in text.split("## What varies", maxsplit=1)[0]
    assert re.search(r"\| 2 +\|.* ↑\d", text)
    assert "<!-- over-saturated -->" in (tmp_path / "plots/by_cell.svg").read_text()
    assert "<!-- c -->" not in (tmp_path / "plots/frontier.svg").read_text()
    cell = write_cell_report(tmp_path / "2").read_text()
    assert cell.splitlines()[2].startswith("**Over-saturated: it sustained ")
    assert cell.count(REASONS[Flag.OVER_SATURATED][1:]) == 1


def test_a_p95_of_fewer_than_100_requests_is_shown_but_not_compared(tmp_path: Path) -> None:
    runs = [
        run("0", open_loop(5, 100, 200), CLOSED, backend="a"),
        run("1", open_loop(5, 10, 99), CLOSED, backend="b"),
        run("2", open_loop(5, 120, 200), CLOSED, backend="c"),
    ]
    cells = summarise_cells(runs)
    candidates = select_candidates(cells)
    assert cells[1].p95 == Estimate(pytest.approx(runs[1].result.metrics["latency/p95_ms"]))
    assert candidates.contains(cells[1])  # its throughput is compared
    assert best_cells(cells, sweep_verdicts(cells)).lowest_p95 == (cells[0], cells[2])
    save(tmp_path, runs)
    text = write_sweep_report(tmp_path).read_text()
    assert "1 compared cell had fewer than 100 requests, too few for a p95 that can be" in text
    assert re.search(r"\| 1 +\|.* ~1\d\.\d \(n=99\)", text)
    best = recommend(runs, 150)[0]
    assert "It cannot be said whether these are within the bound: b." in " ".join(best.limits)
    few = [item for item in runs if item.name == "1"] + [
        run("3", open_loop(5, 10, 50), CLOSED, backend="d")
    ]
    none = recommend(few, 150)[0]
    assert none.advice is None
    assert "A p95 is compared only from 100 requests" in none.evidence[0]


def test_intervals_say_what_they_estimate(tmp_path: Path) -> None:
    once = summarise_cells(rates())
    assert interval_scope(once) == "of this run"
    runs = [
        run(str(3 * i + repeat), open_loop(5 * (i + 1), 100, 200, 7 * i + repeat), CLOSED,
            backend=f"engine-{i}", repeat=repeat)
        for i in range(2) for repeat in (1, 2, 3)
    ]  # fmt: skip
    assert interval_scope(summarise_cells(runs)) == "of this configuration, from 3 repeats"
    assert "± 95 % interval of this configuration, from 3 repeats" in terminal_table(
        [item.result for item in runs]
    )
    save(tmp_path, runs)
    assert "± is the 95 % interval of this configuration, from 3 repeats" in (
        write_sweep_report(tmp_path).read_text()
    )
    assert "95 % interval of this run (ms)" in write_cell_report(tmp_path / "1").read_text()


def test_axes_of_a_load() -> None:
    def config(**load: Any) -> CellConfig:
        return CellConfig({"load": {"name": "trace", **load}})

    together = [config(path="a", speed=1), config(path="b", speed=2)]
    assert varying(together) == ["load.path"]
    assert varying([*together, config(path="b", speed=1)]) == ["load.path", "load.speed"]
    assert axis_title("load.rate") == "requests/s offered (load.rate)"
    assert axis_title("scheduler.max_batch_pairs") == "scheduler.max_batch_pairs"
