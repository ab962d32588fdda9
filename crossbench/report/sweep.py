"""The report of a sweep, written from its cells' files alone, and its table for a terminal."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.measure.catalogue import P95_LATENCY
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.advice.recommendations import recommendations
from crossbench.report.axes import flatten, varying
from crossbench.report.cell import PLOTS_FOLDER, REPORT_FILE
from crossbench.report.columns import text_with_unit
from crossbench.report.compare import CellSummary, Estimate, Run, ratio, summarise_cells
from crossbench.report.drawing import Draw, draw
from crossbench.report.facts import MACHINE, fact_text
from crossbench.report.predecessor import beside_predecessor
from crossbench.report.ranking import quality_reason, sweep_quality
from crossbench.report.sweep_tables import (
    all_cells,
    best_of,
    contenders,
    estimate_text,
    same_mark,
    summary_rows,
    terminal_table,
    unfinished,
)
from crossbench.report.tables import markdown_table
from crossbench.results import RunResult, Status, cell_folders, load_cell
from crossbench.settings.cell_config import CellConfig
from crossbench.system.files import atomic_write
from crossbench.wording import ABSENT, number

CSV_FILE = "results.csv"
__all__ = ["read_runs", "summary_rows", "terminal_table", "write_csv", "write_sweep_report"]
_PLACE = ("host", "cpu", "cores_usable", "os", "git_commit", "git_dirty")


def read_runs(folder: Path) -> list[Run]:
    """Every run of the sweep in its order: the numbered subfolders.

    A folder without a readable result is a run that failed, with the reason as its error; one whose
    requests cannot be read has its numbers, and a warning.
    """
    runs = []
    for path in cell_folders(folder):
        try:
            runs.append(Run(path.name, *load_cell(path)))
        except ResultError as error:
            runs.append(
                Run(path.name, RunResult(Status.FAILED, CellConfig(), "", error=str(error)))
            )
    return runs


def write_sweep_report(folder: Path) -> Path:
    """Write `report.md`, `results.csv` and `plots/` into the sweep's folder; returns the report."""
    runs = read_runs(folder)
    cells, axes = summarise_cells(runs), varying([run.result.config for run in runs])
    write_csv(runs, folder / CSV_FILE)
    plots = draw(lambda: _plots(cells, axes, folder / PLOTS_FOLDER))
    sections = [
        f"# Sweep {folder.resolve().name}",
        question(runs),
        _answer(cells),
        _notes(runs),
        _varied(axes, cells),
        all_cells(cells, axes, folder),
        *plots.markdown(folder),
        _plot_note(cells, bool(plots.paths)),
        sweep_quality(cells),
        beside_predecessor(
            [(_label_with_backend(cell), run.result) for cell in cells for run in cell.runs]
        ),
        _failures(cells),
        _environment(runs),
        recommendations(runs),
    ]
    path = folder / REPORT_FILE
    with atomic_write(path) as partial:
        partial.write_text("\n\n".join(section for section in sections if section) + "\n", "utf-8")
    return path


def _plots(cells: Sequence[CellSummary], axes: Sequence[str], folder: Path) -> Mapping[str, Draw]:
    from crossbench.report.sweep_plots import sweep_plots

    return sweep_plots(cells, axes, folder)


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """One row per run: folder, status, the whole flattened configuration, every metric."""
    flats = [flatten(run.result.config) for run in runs]
    settings = dict.fromkeys(key for flat in flats for key in flat)
    metrics = sorted({name for run in runs for name in run.result.metrics})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["folder", "cell_id", "status", "error", "started_at", *settings, *metrics])
        for run, flat in zip(runs, flats, strict=True):
            result = run.result
            writer.writerow(
                [run.name, result.cell_id, str(result.status), result.error, result.started_at]
                + [flat.get(key) for key in settings]
                + [result.metrics.get(name) for name in metrics]
            )


def question(runs: Sequence[Run]) -> str:
    """What the study asks; cells of which an override made a question of its own ask theirs."""
    asked = dict.fromkeys(str(run.result.config.value("study") or "") for run in runs)
    return "\n\n".join(f"*{text}*" for text in asked if text)


def _label_with_backend(cell: CellSummary) -> str:
    backend = cell.flat.get("backend", "")
    return cell.label if cell.label.startswith(backend) else f"{backend} {cell.label}"


def _answer(cells: Sequence[CellSummary]) -> str:
    finished = [cell for cell in cells if cell.throughput is not None]
    if not cells:
        return "**No cell was run.**"
    if not finished:
        return "**No cell finished**: see below why."
    if len(finished) == 1:
        return f"Only one cell has numbers, {_told(finished[0])}: there is nothing to compare."
    candidates = select_candidates(cells)
    fastest = best_of(contenders(candidates), lambda cell: cell.throughput, max)
    quickest = best_of(contenders(candidates), lambda cell: cell.p95, min)
    lines = []
    if fastest is not None:
        ties = _ties(fastest, candidates.cells, lambda cell: cell.throughput)
        lines.append(f"Highest throughput: {_told(fastest)}{_speedup(fastest, finished[0])}.{ties}")
    if quickest is not None:
        ties = _ties(quickest, candidates.cells, lambda cell: cell.p95)
        lines.append(f"Lowest {P95_LATENCY.title}: {_told(quickest)}.{ties}")
    if fastest is None and len(finished) == sum(cell.disqualified for cell in finished):
        return f"**All {len(finished)} cells with numbers change the ranking**: see Quality below."
    lines += [f"{_told(cell)}." for cell in candidates.cells if fastest is None]
    beside = [
        f"**{cell.label}**, {estimate_text(cell.throughput)} {cell.unit}/s, "
        f"{candidates.excluded[cell.label]}"
        for cell in finished
        if cell.label in candidates.excluded and not cell.disqualified
    ]
    lines += [f"Not in the running: {'; '.join(beside)}."] if beside else []
    lines += [
        f"**{cell.label}** changes the ranking, so it does not count: {quality_reason(cell)}."
        for cell in finished
        if cell.disqualified
    ]
    if len(finished) < len(cells):
        lines.append(f"{len(finished)} of {len(cells)} cells have numbers.")
    return "\n".join(f"- {line}" for line in lines)


def _told(cell: CellSummary) -> str:
    p95 = (
        f" at a {P95_LATENCY.short} of {text_with_unit(P95_LATENCY, cell.metrics)}"
        if cell.p95
        else ""
    )
    return f"**{cell.label}**, {estimate_text(cell.throughput)} {cell.unit}/s{p95}"


def _speedup(cell: CellSummary, first: CellSummary) -> str:
    if cell is first or cell.throughput is None or first.throughput is None:
        return ", the first cell" if cell is first else ""
    times = number(ratio(cell.throughput, first.throughput).value)
    return f", {times} times the first cell ({first.label})"


def _ties(
    best: CellSummary, others: Sequence[CellSummary], get: Callable[[CellSummary], Estimate | None]
) -> str:
    tied = [cell.label for cell in others if cell is not best and same_mark(get(cell), get(best))]
    if tied:
        return f" Not distinguishable from it: {'; '.join(tied)}."
    found = get(best)
    unknown = found is None or found.half_width is None
    return " Its spread is unknown, so its lead may be chance." if unknown else ""


def _notes(runs: Sequence[Run]) -> str:
    """Warnings of the cells, each once, with the cells it is about where these are not all."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for note in (run.result.model.get("caveat"), *run.result.warnings):
            if note:
                about.setdefault(" ".join(str(note).split()), []).append(run.name)
    lines = []
    for note, names in about.items():
        measured = [run for run in runs if run.result.config]
        where = "" if len(names) >= len(measured) else f" (cell {', '.join(names)})"
        lines.append(f"> **Note:** {note}{where}")
    return "\n\n".join(lines)


def _varied(axes: Sequence[str], cells: Sequence[CellSummary]) -> str:
    if not axes:
        return ""
    rows = [
        [
            f"`{axis}`",
            ", ".join(dict.fromkeys(cell.flat.get(axis, ABSENT) for cell in cells if cell.flat)),
        ]
        for axis in axes
    ]
    return f"## What varies\n\n{markdown_table(['axis', 'values'], rows)}"


def _plot_note(cells: Sequence[CellSummary], drawn: bool) -> str:
    missing = sum(cell.throughput is None for cell in cells)
    if not drawn:
        return ""
    plural = "cell has" if missing == 1 else "cells have"
    absent = f" {missing} {plural} no numbers and no place in the plots." if missing else ""
    crossed = ""
    if any(cell.disqualified for cell in cells):
        crossed = " Crossed points change the ranking and are no part of the frontier."
    return f"Error bars are the 95 % intervals of the table above.{crossed}{absent}"


def _failures(cells: Sequence[CellSummary]) -> str:
    why = unfinished(cells)
    return f"## What did not finish\n\n{why}" if why else ""


def _environment(runs: Sequence[Run]) -> str:
    """Where it ran; several values of one thing mean that cells are not quite comparable."""
    rows, mixed = [], []
    for key in _PLACE:
        values = dict.fromkeys(
            fact_text(run.result.environment[key]) for run in runs if key in run.result.environment
        )
        if values:
            rows.append([MACHINE.get(key, key), "; ".join(values)])
            mixed += [MACHINE.get(key, key)] if len(values) > 1 else []
    if not rows:
        return ""
    warning = f"\n\nThe cells differ in {', '.join(mixed)}: compare with care." if mixed else ""
    return f"## Environment\n\n{markdown_table(['', 'value'], rows)}{warning}"
