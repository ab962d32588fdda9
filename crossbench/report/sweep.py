"""The report of a sweep, written from the result files of its cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.report.advice.candidates import NOT_VERIFIED, select_candidates
from crossbench.report.advice.recommendations import recommendations
from crossbench.report.answer import answer
from crossbench.report.axes import axis_meaning, flatten, varying
from crossbench.report.cell import PLOTS_FOLDER, REPORT_FILE
from crossbench.report.cells import CellSummary, Run
from crossbench.report.decision import decision
from crossbench.report.drawing import Draw, draw
from crossbench.report.facts import MACHINE, fact_text
from crossbench.report.flags import sweep_notes, warnings_of
from crossbench.report.machines import (
    machine_of,
    machines_note,
    machines_of,
    machines_section,
)
from crossbench.report.markdown import Section, markdown, one_line
from crossbench.report.predecessor import predecessor_section
from crossbench.report.ranking import sweep_quality
from crossbench.report.ranking_queries import on_common_queries
from crossbench.report.rate_answer import latency_bound_ms
from crossbench.report.scope import interval_scope
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep_tables import all_cells, unfinished
from crossbench.report.tables import markdown_table
from crossbench.report.verdict_tables import verdict_section
from crossbench.report.verdicts import sweep_verdicts
from crossbench.results import RunResult, Status, cell_folders, load_cell
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.stored_plan import read_plan
from crossbench.system.files import atomic_write
from crossbench.wording import ABSENT, counted

CSV_FILE = "results.csv"
_FIGURES = re.compile(r"\d[\d.,]*")
_ENVIRONMENT_KEYS = ("host", "cpu", "cores_usable", "os", "git_commit", "git_dirty")
_IN_TABLE_OF_MACHINES = frozenset({"host", "cpu", "cores_usable"})


def read_runs(folder: Path) -> list[Run]:
    """Read every run of the sweep from its numbered subfolders.

    Cells are in the order in which the sweep names them, and the runs of a cell in the order of
    their blocks. A sweep without a plan is in the order of its subfolders. Their ranking quality is
    that on the queries that all of them scored.
    """
    folders, plan = cell_folders(folder), read_plan(folder)
    if plan is not None:
        cells = dict(enumerate(run.cell for run in plan.runs))
        folders.sort(key=lambda path: cells.get(int(path.name), len(plan.cells)))
    return on_common_queries([read_run(path) for path in folders], folders)


def read_run(folder: Path) -> Run:
    """Read the run of one cell from its folder.

    A folder without a readable result becomes a failed run whose error says why. A run whose
    request records cannot be read keeps its metrics and has a warning.
    """
    try:
        return Run(folder.name, *load_cell(folder))
    except ResultError as error:
        return Run(folder.name, RunResult(Status.FAILED, CellConfig(), "", error=str(error)))


def write_sweep_report(folder: Path) -> Path:
    """Write `report.md`, `results.csv` and `plots/` into `folder`; return the report's path."""
    runs = read_runs(folder)
    cells, axes = summarise_cells(runs), varying([run.result.config for run in runs])
    verdicts = sweep_verdicts(cells)
    write_csv(runs, folder / CSV_FILE)
    bound_ms = latency_bound_ms([run.result for run in runs])
    plots = draw(lambda: _plots(cells, axes, folder / PLOTS_FOLDER, bound_ms))
    decided = decision(select_candidates(cells), bound_ms, verdicts)
    findings = answer(cells, axes, bound_ms, verdicts)
    sections: list[Section] = [
        f"# Sweep {folder.resolve().name}",
        question(runs),
        *(decided or [findings]),
        _notes(runs, cells),
        f"## Findings\n\n{findings}" if decided else "",
        *all_cells(cells, axes, folder, verdicts),
        *plots.markdown(folder),
        _plot_note(cells, bool(plots.paths)),
        recommendations(runs),
        *verdict_section(verdicts),
        *sweep_quality(cells),
        predecessor_section(
            [(_label_with_backend(cell), run.result) for cell in cells for run in cell.runs]
        ),
        _failures(cells),
        _varied(axes, cells),
        machines_section(runs),
        _environment(runs),
    ]
    path = folder / REPORT_FILE
    with atomic_write(path) as partial:
        partial.write_text(markdown(sections), "utf-8")
    return path


def _plots(
    cells: Sequence[CellSummary], axes: Sequence[str], folder: Path, bound_ms: float | None
) -> Mapping[str, Draw]:
    from crossbench.report.sweep_plots import sweep_plots

    return sweep_plots(cells, axes, folder, bound_ms)


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """Write one row per run: folder, status, flags, the flattened configuration, every metric."""
    flats = [flatten(run.result.config) for run in runs]
    settings = dict.fromkeys(key for flat in flats for key in flat)
    metrics = sorted({name for run in runs for name in run.result.metrics})
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        facts = ["folder", "cell_id", "status", "flags", "error", "started_at", "machine"]
        writer.writerow([*facts, *settings, *metrics])
        for run, flat in zip(runs, flats, strict=True):
            result = run.result
            writer.writerow(
                [run.name, result.cell_id, str(result.status), ", ".join(result.flags)]
                + [result.error, result.started_at, machine_of(run)]
                + [flat.get(key) for key in settings]
                + [result.metrics.get(name) for name in metrics]
            )


def question(runs: Sequence[Run]) -> str:
    """The questions of the study (the config key `study`), each once, in italics."""
    asked = dict.fromkeys(str(run.result.config.value("study") or "") for run in runs)
    return "\n\n".join(f"*{one_line(text)}*" for text in asked if text)


def _label_with_backend(cell: CellSummary) -> str:
    backend = cell.flat.get("backend", "")
    return cell.label if cell.label.startswith(backend) else f"{backend} {cell.label}"


def _notes(runs: Sequence[Run], cells: Sequence[CellSummary]) -> str:
    """The cells' flags, then their warnings, each once with the cells that it concerns."""
    labels = {run.name: cell.label for cell in cells for run in cell.runs}
    names_by_note: dict[str, list[str]] = {}
    first_text: dict[str, str] = {}
    for run in runs:
        for note in warnings_of(run.result):
            text = " ".join(note.split())
            # Notes that differ only in their figures are one note
            same = _FIGURES.sub("", text)
            names_by_note.setdefault(first_text.setdefault(same, text), []).append(run.name)
    lines = [f"> {note}" for note in (machines_note(runs), *sweep_notes(runs, labels)) if note]
    for note, names in names_by_note.items():
        measured = [run for run in runs if run.result.config]
        cells_of = dict.fromkeys(labels.get(name, name) for name in names)
        where = "" if len(names) >= len(measured) else f" ({', '.join(cells_of)})"
        lines.append(f"> **Note:** {note}{where}")
    return "\n\n".join(lines)


def _varied(axes: Sequence[str], cells: Sequence[CellSummary]) -> str:
    if not axes:
        return ""
    units = dict.fromkeys(cell.unit for cell in cells)
    meanings = [axis_meaning(axis, " or ".join(units)) for axis in axes]
    rows = [
        [
            f"`{axis}`" + (f" ({meaning})" if meaning else ""),
            ", ".join(dict.fromkeys(cell.flat.get(axis, ABSENT) for cell in cells if cell.flat)),
        ]
        for axis, meaning in zip(axes, meanings, strict=True)
    ]
    return f"## What varies\n\n{markdown_table(['axis', 'values'], rows)}"


def _plot_note(cells: Sequence[CellSummary], drawn: bool) -> str:
    if not drawn:
        return ""
    notes = []
    if any(cell.throughput and cell.throughput.half_width is not None for cell in cells):
        notes = [f"Error bars are 95 % intervals {interval_scope(cells)}."]
    excluded = select_candidates(cells).excluded
    if unverified := [label for label, why in excluded.items() if why == NOT_VERIFIED]:
        notes.append(f"The ranking is not verified: {', '.join(unverified)}.")
    if any(cell.disqualified for cell in cells):
        notes.append("Crossed-out points change the ranking and are not part of the frontier.")
    if any(cell.over_saturated and not cell.is_ramp for cell in cells):
        notes.append(
            "The throughput of over-saturated cells is what the server sustained. Their latencies "
            "grew for as long as they ran, so plots of p95 do not show them."
        )
    if ramps := sum(cell.is_ramp for cell in cells):
        notes.append(
            f"{counted(ramps, 'ramp')} of several loads: see the steps in the cells' own reports."
        )
    if missing := sum(cell.throughput is None for cell in cells):
        subject, what = ("cell was", "it") if missing == 1 else ("cells were", "them")
        notes.append(f"{missing} {subject} not measured, so the plots do not show {what}.")
    return " ".join(notes)


def _failures(cells: Sequence[CellSummary]) -> str:
    why = unfinished(cells)
    return f"## Cells that did not finish\n\n{why}" if why else ""


def _environment(runs: Sequence[Run]) -> str:
    """The machine and versions of the runs, with a warning if they differ between cells."""
    rows, mixed = [], []
    told = _IN_TABLE_OF_MACHINES if len(machines_of(runs)) > 1 else frozenset[str]()
    for key in (key for key in _ENVIRONMENT_KEYS if key not in told):
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
