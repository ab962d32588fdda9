"""The report of a sweep, written from the result files of its cells."""

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
from crossbench.report.predecessor import predecessor_section
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
_ENVIRONMENT_KEYS = ("host", "cpu", "cores_usable", "os", "git_commit", "git_dirty")


def read_runs(folder: Path) -> list[Run]:
    """Read every run of the sweep from its numbered subfolders, in their order.

    A folder without a readable result becomes a failed run whose error says why. A run whose
    request records cannot be read keeps its metrics and has a warning.
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
    """Write `report.md`, `results.csv` and `plots/` into `folder`; return the report's path."""
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
        predecessor_section(
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
    """Write one row per run: folder, status, the whole flattened configuration, every metric."""
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
    """The questions of the study (the config key `study`), each once, in italics."""
    asked = dict.fromkeys(str(run.result.config.value("study") or "") for run in runs)
    return "\n\n".join(f"*{text}*" for text in asked if text)


def _label_with_backend(cell: CellSummary) -> str:
    backend = cell.flat.get("backend", "")
    return cell.label if cell.label.startswith(backend) else f"{backend} {cell.label}"


def _answer(cells: Sequence[CellSummary]) -> str:
    measured = [cell for cell in cells if cell.throughput is not None]
    if not cells:
        return "**No cell was run.**"
    if not measured:
        return "**No cell finished.** The reasons are listed below."
    if len(measured) == 1:
        only = _description(measured[0])
        return f"Only one cell was measured, {only}, so there is nothing to compare."
    candidates = select_candidates(cells)
    fastest = best_of(contenders(candidates), lambda cell: cell.throughput, max)
    lowest_p95 = best_of(contenders(candidates), lambda cell: cell.p95, min)
    lines = []
    if fastest is not None:
        ties = _ties(fastest, candidates.cells, lambda cell: cell.throughput)
        lines.append(
            f"Highest throughput: {_description(fastest)}{_speedup(fastest, measured[0])}.{ties}"
        )
    if lowest_p95 is not None:
        ties = _ties(lowest_p95, candidates.cells, lambda cell: cell.p95)
        lines.append(f"Lowest {P95_LATENCY.title}: {_description(lowest_p95)}.{ties}")
    if fastest is None and len(measured) == sum(cell.disqualified for cell in measured):
        return (
            f"**All {len(measured)} measured cells change the ranking**: see Ranking quality below."
        )
    lines += [f"{_description(cell)}." for cell in candidates.cells if fastest is None]
    excluded = [
        f"**{cell.label}**, {estimate_text(cell.throughput)} {cell.unit}/s "
        f"({candidates.excluded[cell.label]})"
        for cell in measured
        if cell.label in candidates.excluded and not cell.disqualified
    ]
    lines += [f"Excluded from the comparison: {'; '.join(excluded)}."] if excluded else []
    lines += [
        f"**{cell.label}** changes the ranking, so it is excluded: {quality_reason(cell)}."
        for cell in measured
        if cell.disqualified
    ]
    if len(measured) < len(cells):
        lines.append(f"{len(measured)} of {len(cells)} cells were measured.")
    return "\n".join(f"- {line}" for line in lines)


def _description(cell: CellSummary) -> str:
    p95 = (
        f" at a {P95_LATENCY.short} of {text_with_unit(P95_LATENCY, cell.metrics)}"
        if cell.p95
        else ""
    )
    return f"**{cell.label}**, {estimate_text(cell.throughput)} {cell.unit}/s{p95}"


def _speedup(cell: CellSummary, first: CellSummary) -> str:
    if cell is first or cell.throughput is None or first.throughput is None:
        return " (the first cell)" if cell is first else ""
    times = number(ratio(cell.throughput, first.throughput).value)
    return f", {times} times the throughput of the first cell ({first.label})"


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
    """The cells' warnings, each once; one that does not concern all cells lists those it does."""
    names_by_note: dict[str, list[str]] = {}
    for run in runs:
        for note in (run.result.model.get("caveat"), *run.result.warnings):
            if note:
                names_by_note.setdefault(" ".join(str(note).split()), []).append(run.name)
    lines = []
    for note, names in names_by_note.items():
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
    subject = "cell was" if missing == 1 else "cells were"
    absent = f" {missing} {subject} not measured, so the plots do not show them." if missing else ""
    crossed = ""
    if any(cell.disqualified for cell in cells):
        crossed = " Crossed-out points change the ranking and are not part of the frontier."
    return f"Error bars are 95 % intervals.{crossed}{absent}"


def _failures(cells: Sequence[CellSummary]) -> str:
    why = unfinished(cells)
    return f"## Cells that did not finish\n\n{why}" if why else ""


def _environment(runs: Sequence[Run]) -> str:
    """The machine and versions of the runs, with a warning if they differ between cells."""
    rows, mixed = [], []
    for key in _ENVIRONMENT_KEYS:
        values = dict.fromkeys(
            fact_text(run.result.environment[key]) for run in runs if key in run.result.environment
        )
        if values:
            rows.append([MACHINE.get(key, key), "; ".join(values)])
            mixed += [MACHINE.get(key, key)] if len(values) > 1 else []
    if not rows:
        return ""
    warning = (
        f"\n\nThe cells differ in {', '.join(mixed)}, so compare them with care." if mixed else ""
    )
    return f"## Environment\n\n{markdown_table(['', 'value'], rows)}{warning}"
