"""Reports of one, two and twenty-four cells, of repeats, and of cells that did not finish."""

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase

from crossbench.errors import ResultError
from crossbench.measure.correlation import correlation_metrics
from crossbench.measure.statistics import summarise, windows
from crossbench.report.axes import flatten, label, varying
from crossbench.report.cell import write_cell_report
from crossbench.report.cells import pareto
from crossbench.report.style import PALETTE, figure
from crossbench.report.style import save as save_plot
from crossbench.report.sweep import read_runs, write_sweep_report
from crossbench.report.tables import interval_text, markdown_table, plain_table, plus_minus
from crossbench.report.terminal import terminal_table
from crossbench.results import (
    RECORDS_FILE,
    RESULT_FILE,
    Flag,
    RunResult,
    Status,
    load_records,
    load_result,
    save_records,
    save_result,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.types import RequestRecord
from crossbench.wording import number

CAVEAT = "The relevance of the scores means nothing."


def config(backend: str = "pytorch", batch: int = 32, repeat: int = 1) -> dict[str, Any]:
    return {
        "batch": batch,
        "concurrency": 1,
        "repeat": repeat,
        "backend": {"_target_": f"made.{backend}", "name": backend, "compile": backend != "x"},
        "quant": {"name": "fp32"},
    }


def load(pairs_per_s: float, batch: int, seed: int = 0, n: int = 120) -> list[RequestRecord]:
    """Records of a closed loop with one request in flight, whose latency varies by 5 %."""
    rng, now, records = np.random.default_rng(seed), 0.0, []
    for index in range(n):
        latency = batch / pairs_per_s * float(rng.lognormal(0, 0.05))
        infer = latency * 900
        tokens = batch * int(rng.integers(70, 110))
        records.append(
            RequestRecord(index, now, now, now + latency, batch, tokens, 0, 0.3, 0.1, infer, "OK")
        )
        now += latency
    return records


def save(
    folder: Path,
    settings: dict[str, Any],
    records: Sequence[RequestRecord] = (),
    status: Status = Status.FINISHED,
    error: str | None = None,
) -> RunResult:
    folder.mkdir(parents=True)
    metrics = {**summarise(records), **correlation_metrics(records)} if records else {}
    result = RunResult(
        status,
        CellConfig(settings),
        cell_id=f"{settings['backend']['name']} {settings['batch']}",
        error=error,
        metrics={**metrics, "memory/rss_peak_mb": 700.0} if metrics else {},
        environment={"host": "here", "cpu": "one", "versions": {"torch": "2.13.0"}},
        series=windows(records).series(),
        model={"name": "minilm-l6-seeded", "caveat": CAVEAT},
        dataset={"name": "synthetic", "passage_tokens": {"50": 20, "mean": 21.5, "max": 40}},
    )
    save_result(result, folder)
    if records:
        save_records(records, folder)
    return result


def linked(report: Path) -> list[Path]:
    """The plots that a report links; checks that their files exist and are not empty."""
    paths = [
        report.parent / found for found in re.findall(r"!\[.*?\]\((.*?)\)", report.read_text())
    ]
    assert all(path.stat().st_size > 5000 for path in paths)
    assert all(path.with_suffix(".svg").exists() for path in paths)
    return paths


def test_cell_report(tmp_path: Path) -> None:
    records = load(400, 32, n=150)
    save(tmp_path / "0", config(), records)
    report = write_cell_report(tmp_path / "0")
    text = report.read_text()
    metrics = summarise(records)
    rate, p95 = metrics["throughput/pairs_per_s"], metrics["latency/p95_ms"]
    assert f"**{rate:.0f} pairs/s at a p95 latency of {p95:.1f} ms**, over 150 requests" in text
    assert text.index(CAVEAT) < text.index("## Summary")
    assert re.search(r"\| mean +\| +21\.5 \| +81\.7 \|", text)
    assert re.search(r"\| p99 +\| +~[\d.]+ \(n=150\)", text)
    for section in ("Latency", "Throughput of single requests", "Correlation", "Stages", "Memory"):
        assert f"## {section}" in text
    assert len(linked(report)) == 4


@pytest.mark.parametrize("n", [0, 1])
def test_cell_with_no_or_one_reply(tmp_path: Path, n: int) -> None:
    failed = RequestRecord(9, 0.0, 0.0, 0.2, 32, 0, 0, 0.0, 0.0, 0.0, "INTERNAL")
    save(tmp_path / "0", config(), [*load(400, 32, n=n), failed])
    report = write_cell_report(tmp_path / "0")
    assert f"1 of {n + 1} requests failed (INTERNAL)" in report.read_text()
    assert ("No request succeeded" in report.read_text()) == (n == 0)
    assert len(linked(report)) == (4 if n else 0)


def test_broken_request_records_do_not_break_the_report(tmp_path: Path) -> None:
    saved = [save(tmp_path / str(n), config(batch=8 + n), load(400, 8, n)) for n in range(2)]
    rate = saved[0].metrics["throughput/pairs_per_s"]
    whole = (tmp_path / "0" / RECORDS_FILE).read_bytes()
    for broken in (b"", whole[: len(whole) // 2], whole[:200] + whole[300:]):
        (tmp_path / "0" / RECORDS_FILE).write_bytes(broken)
        with pytest.raises(ResultError, match=r"requests\.parquet is broken"):
            load_records(tmp_path / "0")
        for report in (write_cell_report(tmp_path / "0"), write_sweep_report(tmp_path)):
            assert "> **Note:** requests.parquet is broken" in report.read_text()
            assert f"{rate:.0f}" in report.read_text()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[1]",
        b"\xff\xfe",
        b'{"schema_version": 1',
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "status": "wonderful", "config": {}, "cell_id": ""}',
    ],
)
def test_an_invalid_result_is_a_failed_run(tmp_path: Path, document: bytes) -> None:
    save(tmp_path / "0", config(), load(400, 32))
    save(tmp_path / "1", config("packed"), load(400, 32))
    (tmp_path / "0" / RESULT_FILE).write_bytes(document)
    with pytest.raises(ResultError, match=r"run the cell again"):
        load_result(tmp_path / "0")
    assert [run.result.status for run in read_runs(tmp_path)] == ["failed", "finished"]


def test_two_cells_of_which_one_is_unavailable(tmp_path: Path) -> None:
    reason = "backend=mps needs a Mac | here is Linux"
    here = save(tmp_path / "1", config("pytorch"), load(400, 32))
    gone = save(tmp_path / "0", config("mps"), (), Status.UNAVAILABLE, f"{reason}\nmore")
    assert "**unavailable**: backend=mps" in write_cell_report(tmp_path / "0").read_text()
    report = write_sweep_report(tmp_path)
    text = report.read_text()
    assert "there is nothing to compare" in text
    assert "- Cell 0 (mps): **unavailable**: backend=mps needs a Mac | here is Linux more\n" in text
    assert "[0](0/report.md)" in text
    assert len(linked(report)) == 1
    table = terminal_table([gone, here])
    assert "mps: unavailable: backend=mps needs a Mac" in table
    assert len(set(map(len, table.splitlines()[:2]))) <= 2
    long = replace(gone, error="backend=mps needs a Mac " + "and " * 20 + "so: use backend=noop")
    shown = terminal_table([long, here])
    assert f"mps: unavailable: {long.error}" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def checked(verdict: str, change: float) -> tuple[dict[str, Any], dict[str, float]]:
    """A quality check's summary and metrics; the interval of the change is ± 0.5 %."""
    summary = {"check": "sample", "verdict": verdict, "reason": f"found to be {verdict}",
               "passages_a_query": 20, "queries_chosen": 43}  # fmt: skip
    metrics = {"quality/queries": 43.0, "quality/pairs": 860.0, "quality/ndcg_at_10": 0.7,
               "quality/ndcg_at_10_low": 0.65, "quality/ndcg_at_10_high": 0.75}  # fmt: skip
    if verdict != "reference":
        metrics |= {"quality/max_abs_diff": 0.2, "quality/mean_abs_diff": 0.03,
                    "quality/kendall_tau": 0.96, "quality/ndcg_at_10_change": change,
                    "quality/ndcg_at_10_change_low": change - 0.005,
                    "quality/ndcg_at_10_change_high": change + 0.005}  # fmt: skip
    return summary, metrics


def quality_sweep(folder: Path, verdicts: dict[str, tuple[str, float, int]]) -> list[RunResult]:
    """A sweep with a cell per backend; values are verdict, change of nDCG@10 and pairs/s."""
    results = []
    for index, (backend, (verdict, change, speed)) in enumerate(verdicts.items()):
        cell = folder / str(index)
        result = save(cell, config(backend), load(speed, 32, index))
        summary, metrics = checked(verdict, change)
        metrics |= {**result.metrics, "memory/model_mb": 90.0 - 20 * index}
        results.append(replace(result, metrics=metrics, quality=summary))
        save_result(results[-1], cell)
        write_cell_report(cell)
    return results


def test_a_cell_that_changes_the_ranking_is_never_the_best(tmp_path: Path) -> None:
    results = quality_sweep(
        tmp_path,
        {
            "pytorch": ("reference", 0.0, 300),
            "onnx": ("keeps", -0.001, 600),
            "wild": ("changes", -0.08, 900),
            "mlx": ("cannot say", -0.008, 250),
        },
    )
    report = write_sweep_report(tmp_path)
    text = report.read_text()
    assert "**onnx is faster than both other cells** (2.01 to 2.4" in text
    assert "**wild** changes the ranking, so it is excluded: found to be changes." in text
    table = text[text.index("## All cells") :]
    assert re.search(r"\| onnx .* \*\*★ \d{3}.* 70\.0 .* keeps \|", table)
    assert re.search(r"\| wild .* 50\.0 .* -8.0 % \(-8.5 % … -7.5 %\) \| +✗ changes \|", table)
    assert re.search(r"\| +reference \|", table)
    assert "Crossed-out points change the ranking" in text
    assert len(linked(report)) == 2
    svg = (tmp_path / "plots/frontier.svg").read_text()
    assert "changes the ranking: disqualified" in svg
    terminal = terminal_table(results)
    assert re.search(r"onnx +★ \d", terminal)
    assert re.search(r"wild +✗ \d", terminal)
    assert "✗ changes the ranking" in terminal
    assert re.search(r"onnx .* keeps *$", terminal, re.MULTILINE)
    assert re.search(r"wild .* ✗ changes *$", terminal, re.MULTILINE)
    cell = (tmp_path / "2" / "report.md").read_text()
    assert "**The ranking is changed**: found to be changes." in cell


def test_no_best_cell_if_all_change_the_ranking(tmp_path: Path) -> None:
    cells_ = {name: ("changes", -0.08, speed) for name, speed in (("a", 500), ("b", 700))}
    quality_sweep(tmp_path, cells_)
    text = write_sweep_report(tmp_path).read_text()
    assert "All 2 measured cells change the ranking" in text
    assert "**700" not in text


def test_only_a_cell_that_can_be_served_is_the_fastest(tmp_path: Path) -> None:
    def cell(index: int, speed: float, **about: Any) -> RunResult:
        settings = {**config(), "pipeline": "full", **about}
        folder = tmp_path / str(index)
        result = save(folder, settings, load(speed, 32, index))
        result = replace(result, cell_id=str(index))
        save_result(result, folder)
        return result

    stages = [cell(0, 9000, pipeline="tokenize"), cell(1, 450, pipeline="infer"), cell(2, 400)]
    text = write_sweep_report(tmp_path).read_text()
    assert "**9," not in text[text.index("## All cells") :]
    assert "faster than" not in text  # there is only one whole pipeline
    assert re.search(
        r"Excluded from the comparison: \*\*pipeline=tokenize\*\*, .* \(measures only tokenize\);",
        text,
    )
    assert not set("★☆") & set(terminal_table(stages))

    noop = {"_target_": "made.noop", "name": "noop"}
    backends = [*stages[2:], cell(3, 5000, backend=noop), cell(4, 700, quant={"name": "int8"})]
    reference = replace(backends[0], quality=checked("reference", 0.0)[0])
    unsure = replace(backends[2], quality=checked("cannot say", -0.01)[0])
    table = terminal_table([reference, backends[1], unsure])
    assert re.search(r"pytorch +fp32 +★ 400", table)
    assert table.count("★") == 2  # one in the table, one in the legend
    assert "(excluded: runs no model, ranking not verified)" in " ".join(table.split())
    assert max(map(len, table.splitlines())) <= 80


def test_an_over_saturated_cell_is_marked_and_not_compared(tmp_path: Path) -> None:
    results = []
    for index, batch in enumerate((8, 32, 96)):
        result = save(tmp_path / str(index), config(batch=batch), load(400 + 50 * index, batch))
        if batch == 96:
            reason = "requests were due at 9 per second, and the server answered 5 per second."
            result = replace(result, flags={Flag.OVER_SATURATED: reason})
            save_result(result, tmp_path / str(index))
        results.append(result)
    table = terminal_table(results)
    assert re.search(r"^96 +S +499", table, re.MULTILINE)
    assert "S over-saturated: requests were due faster than the server could answer" in table
    assert max(map(len, table.splitlines()[:5])) <= 80
    text = write_sweep_report(tmp_path).read_text()
    assert re.search(r"Excluded from the comparison: \*\*batch=96\*\*, .* \(over-saturated\)", text)
    assert "(not measured" not in text
    assert "**2 cells may be the fastest**: **batch=32**" in text  # 1.13×, and one run each


def test_twenty_four_cells(tmp_path: Path) -> None:
    backends = [f"backend-with-quite-a-long-name-number-{index}" for index in range(8)]
    results = []
    for index, (backend, batch) in enumerate(product(backends, (8, 32, 96))):
        folder = tmp_path / str(index)
        if index in (5, 20):
            results.append(save(folder, config(backend, batch), (), Status.FAILED, "killed"))
        else:
            speed = 300 + 60 * backends.index(backend) + batch
            results.append(save(folder, config(backend, batch), load(speed, batch, index, 60)))
    report = write_sweep_report(tmp_path)
    text = report.read_text()
    assert "22 of 24 cells were measured" in text
    assert f"cells may be the fastest**: **{backends[7]} batch=96**" in text
    assert [path.name for path in linked(report)] == ["by_batch.png", "frontier.png"]
    rows = list(csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8")))
    assert [row["folder"] for row in rows] == [str(index) for index in range(24)]
    assert float(rows[3]["throughput/pairs_per_s"]) == pytest.approx(
        results[3].metrics["throughput/pairs_per_s"]
    )
    assert (rows[5]["status"], rows[5]["error"]) == ("failed", "killed")
    assert rows[0]["backend"] == backends[0]
    lines = terminal_table(results).splitlines()
    assert len(lines) == 2 + 24 + 1 + 2 + 1 + 2  # legend and reasons have two lines each


def test_lines_have_a_gap_at_cells_that_were_not_measured(tmp_path: Path) -> None:
    for index, batch in enumerate((8, 16, 32, 64)):
        if batch == 16:
            save(tmp_path / str(index), config("x", batch), (), Status.FAILED, "killed")
        else:
            save(tmp_path / str(index), config("x", batch), load(300 + batch, batch, index, 40))
    write_sweep_report(tmp_path)
    svg = (tmp_path / "plots/by_batch.svg").read_text()
    drawn = f'style="fill: none; stroke: {PALETTE[0].lower()}; stroke-width: 1.6'
    line, _ = re.findall(rf'<path d="(M[^"]*)" clip-path="[^"]*" {drawn}', svg)  # in two panels
    assert line.count("M") == 2  # one gap: 8, then 32 to 64
    assert line.count("L") == 1


def test_sweep_without_finished_cells_and_without_cells(tmp_path: Path) -> None:
    result = save(tmp_path / "a" / "0", config(), (), Status.FAILED, "killed by signal 9")
    (tmp_path / "a" / "1").mkdir()
    text = write_sweep_report(tmp_path / "a").read_text()
    assert "**No cell finished.**" in text
    assert "no result.json in" in text
    assert "killed by signal 9" in terminal_table([result])
    (tmp_path / "b").mkdir()
    assert "**No cell was run.**" in write_sweep_report(tmp_path / "b").read_text()


def repeated(folder: Path, speeds: Mapping[str, Sequence[float]]) -> str:
    """The report of a sweep whose backends have these throughputs, one for each block."""
    numbers = itertools.count()
    for repeat in range(len(next(iter(speeds.values())))):
        for backend, values in speeds.items():
            records = load(values[repeat], 32, 1)
            save(folder / str(next(numbers)), config(backend, 32, repeat), records)
    return write_sweep_report(folder).read_text()


def test_repeats_are_averaged_and_their_spread_decides(tmp_path: Path) -> None:
    # Two backends differ by less than their repeats do; the third differs by more
    slow = {"pytorch": (400, 440, 420, 410), "compiled": (425, 405, 445, 415)}
    text = repeated(tmp_path, {**slow, "quick": (800, 850, 880, 830)})
    assert "**quick is faster than both other cells** (1.99 to 2.01×)" in text
    assert re.search(r"The order of the others is not decided\. .*repeat", text)
    assert re.search(r"\| quick .* \*\*★ 844 ± ", text)
    assert re.search(r"\| compiled +\| +1\.01× \([\d.]+ to [\d.]+\) \| cannot tell \(", text)
    assert re.search(r"\| quick +\| +2\.01× \([\d.]+ to [\d.]+\) \| faster ", text)
    assert "The spread comes from 4 blocks of this sweep." in text


def test_a_drift_of_blocks_hides_no_difference(tmp_path: Path) -> None:
    # From block to block the machine gets 30 % slower, but the second backend is always 10 % faster
    drift = (1.0, 0.9, 0.8, 0.7)
    first, second = (400, 402, 399, 401), (440, 438, 441, 442)
    speeds = {
        "pytorch": [value * slower for value, slower in zip(first, drift, strict=True)],
        "compiled": [value * slower for value, slower in zip(second, drift, strict=True)],
    }
    assert "**compiled is faster than the other cell** (1.10×)" in repeated(tmp_path, speeds)


def test_cells_within_the_margin_are_the_same(tmp_path: Path) -> None:
    speeds = {"pytorch": (400, 402, 399, 401), "compiled": (401, 402, 400, 401)}
    text = repeated(tmp_path, speeds)
    assert "**2 cells are the fastest**, the same within the margin" in text
    assert "the same within ±2 %" in text
    assert text.count("☆ 40") == 2


def test_one_run_calls_nothing_faster_that_another_run_could_change(tmp_path: Path) -> None:
    text = repeated(tmp_path, {"pytorch": (400,), "compiled": (440,)})
    assert "**2 cells may be the fastest**" in text
    assert "measured once, so a difference in throughput can be told only from" in text
    assert "±" not in text[text.index("## All cells") : text.index("## Verdicts")].split("\n\n")[1]
    clear = repeated(tmp_path / "clear", {"pytorch": (400,), "compiled": (900,)})
    assert "**compiled is faster than the other cell** (2.25×)" in clear


def test_the_baseline_that_the_user_names(tmp_path: Path) -> None:
    for index, backend in enumerate(("pytorch", "compiled", "onnx")):
        settings = config(backend) | {"baseline": {"backend": "compiled"}}
        save(tmp_path / str(index), settings, load(400 + 400 * index, 32, 1))
    text = write_sweep_report(tmp_path).read_text()
    assert "throughput (× compiled)" in text
    missing = config("mlx") | {"baseline": {"backend": "mps"}}
    save(tmp_path / "b" / "0", missing, load(400, 32, 1))
    save(tmp_path / "b" / "1", missing | {"batch": 8}, load(400, 8, 1))
    text = write_sweep_report(tmp_path / "b").read_text()
    assert "The baseline (backend=mps) has no result that can be compared" in text


def test_pareto() -> None:
    assert pareto([(10, 5), (8, 5), (20, 9), (15, 10), (5, 1)]) == [4, 0, 2]


def test_axes_leave_out_repeats_and_values_implied_by_a_choice() -> None:
    configs = [
        CellConfig(made)
        for made in (config("pytorch", 32, 1), config("x", 32, 2), config("x", 96, 1))
    ]
    assert varying(configs) == ["backend", "batch"]
    assert label(configs[2], ["backend", "batch"]) == "x batch=96"
    assert label(configs[0]) == "pytorch fp32 batch=32 concurrency=1"
    free = [
        CellConfig(config("pytorch")),
        CellConfig({**config("x"), "backend": {"name": "pytorch", "compile": False}}),
    ]
    assert varying(free) == ["backend.compile"]
    assert flatten(CellConfig({"a": {"name": "n", "b": {"c": None}}})) == {
        "a": "n",
        "a.b.c": "null",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0"),
        (7, "7"),
        (12345.6, "12,346"),
        (123.4, "123"),
        (-4.2, "-4.20"),
        (0.0123, "0.0123"),
        (1e-5, "1.0e-05"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_spreads_and_tables_as_text() -> None:
    assert plus_minus(408.31, 28.6) == "408 ± 29"
    assert plus_minus(4.0831, 0.0286) == "4.083 ± 0.029"
    assert interval_text(77.71, 80.13) == "77.7 … 80.1"
    table = markdown_table(["a", "long"], [["x|y", "1"], ["é", "10"]], "lr")
    assert table.splitlines()[1] == "| ---- | ---: |"
    assert table.splitlines()[2] == "| x\\|y |    1 |"
    assert len({len(line) for line in table.splitlines()}) == 1
    assert plain_table(["a", "b"], [["日本", "1"]], "lr").splitlines()[2] == "日本  1"


class Interrupting(Artist):
    """Is interrupted while it is drawn, after the layout has been computed."""

    armed = False

    def draw(self, renderer: RendererBase) -> None:
        if self.armed:
            raise KeyboardInterrupt


def test_a_plot_that_is_interrupted_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    with figure(2.0) as made:
        artist = made.add_artist(Interrupting())
        save_plot(made, tmp_path, "plot")
        complete = (tmp_path / "plot.svg").read_bytes()
        artist.armed = True
        for path in (tmp_path, tmp_path / "new"):
            with pytest.raises(KeyboardInterrupt):
                save_plot(made, path, "plot")
    assert (tmp_path / "plot.svg").read_bytes() == complete
    assert not list((tmp_path / "new").iterdir())
