"""The report of a suite: its studies one below the other, and the tables that span them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.load.labels import load_description
from crossbench.measure import catalogue
from crossbench.measure.metric import Metric, View
from crossbench.measure.statistics import latency_range_table
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.advice.recommendations import recommendations
from crossbench.report.cell import REPORT_FILE
from crossbench.report.columns import metric_text
from crossbench.report.compare import CellSummary, Run, summarise_cells
from crossbench.report.predecessor import predecessor_entries
from crossbench.report.sweep import question, read_runs, summary_rows
from crossbench.report.sweep_tables import best_of, estimate_text, unfinished
from crossbench.report.tables import markdown_table
from crossbench.system.files import atomic_write
from crossbench.types import RequestRecord
from crossbench.wording import ABSENT, counted, number

SUITE_FILE = "suite.json"
STUDY_FILE = "study.json"
_BACKEND_METRICS = (
    catalogue.latency(50), catalogue.P95_LATENCY, catalogue.DEVICE_PEAK_MB, catalogue.RSS_PEAK_MB,
    catalogue.MODEL_MB,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SuiteState:
    """What a suite was started for, as its folder remembers it."""

    studies: tuple[str, ...]
    overrides: tuple[str, ...]
    skipped: Mapping[str, str]  # study: why this machine cannot run it


@dataclass(frozen=True, slots=True)
class Study:
    """One study of a suite: its runs are empty where it was skipped or is still to be run."""

    name: str
    state: str
    runs: tuple[Run, ...] = ()
    cells: tuple[CellSummary, ...] = ()


def read_suite(folder: Path) -> SuiteState:
    """Read `folder`/suite.json.

    Raises:
        ResultError: there is none, or it is not one of a suite.
    """
    try:
        found = json.loads((folder / SUITE_FILE).read_text("utf-8"))
        return SuiteState(tuple(found["studies"]), tuple(found["overrides"]), found["skipped"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(
            f"{folder} is no folder of a suite ({error}): give the one that "
            "`python -m crossbench.suite` has printed"
        ) from error


def exit_status(folder: Path) -> int | None:
    """The exit status of the study in `folder`; None: it has not run to its end."""
    try:
        return int(json.loads((folder / STUDY_FILE).read_text("utf-8"))["exit_status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_suite_report(folder: Path) -> Path:
    """Write `report.md` from what the studies' folders hold; returns it."""
    state = read_suite(folder)
    studies = [_read_study(folder, name, state) for name in state.studies]
    runs = [
        replace(run, name=f"{study.name}/{run.name}") for study in studies for run in study.runs
    ]
    sections = [
        ("Studies", _overview(studies)),
        ("Baseline against production optimum", _baseline_and_optimum(studies, runs)),
        ("Backends", _backends(runs)),
        ("Throughput by latency range", _ranges(runs)),
        ("Recommendations", recommendations(runs).removeprefix("## Recommendations\n\n")),
        *((study.name, _one(study)) for study in studies if study.runs),
        ("What was skipped", _skipped(state)),
    ]
    written = [(title, text) for title, text in sections if text]
    contents = "\n".join(f"- [{title}](#{_anchor(title)})" for title, _ in written)
    done = sum(bool(study.runs) for study in studies)
    told = f"{done} of {len(studies)} studies have results"
    given = f", with {' '.join(f'`{word}`' for word in state.overrides)}" if state.overrides else ""
    parts = [f"# Suite {folder.resolve().name}", f"{told}{given}.", contents]
    parts += [f"## {title}\n\n{text}" for title, text in written]
    path = folder / REPORT_FILE
    with atomic_write(path) as partial:
        partial.write_text("\n\n".join(parts) + "\n", "utf-8")
    return path


def _read_study(folder: Path, name: str, state: SuiteState) -> Study:
    if name in state.skipped:
        return Study(name, "skipped")
    status = exit_status(folder / name)
    words = {None: "not finished", 0: "finished"}.get(status, "finished, not every cell")
    runs = tuple(read_runs(folder / name)) if (folder / name).is_dir() else ()
    if status is not None and not runs:
        words = "did not start"
    return Study(name, words, runs, tuple(summarise_cells(runs)))


def _overview(studies: Sequence[Study]) -> str:
    rows = []
    for study in studies:
        best = best_of(select_candidates(study.cells).cells, lambda cell: cell.throughput, max)
        found = [
            number(entry["metrics"].get(catalogue.PAIRS_PER_S.name))
            for entry, _ in predecessor_entries([run.result for run in study.runs]).values()
        ]
        rows.append([
            f"[{study.name}]({study.name}/{REPORT_FILE})" if study.runs else study.name,
            study.state,
            best.label if best else ABSENT,
            estimate_text(best.throughput if best else None),
            metric_text(catalogue.P95_LATENCY, best.metrics if best else {}),
            " / ".join(found) or ABSENT,
        ])  # fmt: skip
    rate, p95 = catalogue.PAIRS_PER_S.heading, catalogue.P95_LATENCY.heading
    headers = ["study", "state", "fastest cell", rate, p95, f"predecessor system, {rate}"]
    return markdown_table(headers, rows, "lllrrr")


def _baseline_and_optimum(studies: Sequence[Study], runs: Sequence[Run]) -> str:
    baseline = _first(studies, "baseline")
    optimum = _first(studies, "optimum")
    if optimum is None:
        best = best_of(
            select_candidates(summarise_cells(runs)).cells, lambda cell: cell.throughput, max
        )
        optimum = (f"fastest of all, {best.name}", best) if best else None
    if baseline is None or optimum is None or baseline[1].runs == optimum[1].runs:
        return (
            "It needs numbers of a study that is marked as a baseline (`report.baseline` in "
            "conf/experiment), and of another cell: they are not here."
        )
    compared = catalogue.shown(View.COMPARISON)
    rows = [_change(metric, baseline[1], optimum[1]) for metric in compared]
    headers = ["", f"baseline: {baseline[0]}", f"optimum: {optimum[0]}", "change"]
    shown = [row for row in rows if row[1:] != [ABSENT] * 3]
    return markdown_table(headers, shown, "lrrr")


def _first(studies: Sequence[Study], role: str) -> tuple[str, CellSummary] | None:
    """The fastest cell of the first study marked as `role` (its `report.<role>`) that has one."""
    marked = [(place, study) for study in studies if (place := _place(study, role)) is not None]
    for _, study in sorted(marked, key=lambda item: item[0]):
        kept = [cell for cell in study.cells if not cell.disqualified]
        best = best_of(kept, lambda cell: cell.throughput, max)
        if best is not None:
            return f"{study.name}, {best.flat.get('backend', '')}", best
    return None


def _place(study: Study, role: str) -> int | None:
    """Which of the studies marked as `role` it is, from 1; None: it is none of them."""
    places = [run.result.config.value(f"report.{role}") for run in study.runs]
    return min((place for place in places if place is not None), default=None)


def _change(metric: Metric, before: CellSummary, after: CellSummary) -> list[str]:
    old, new = before.metrics.get(metric.name), after.metrics.get(metric.name)
    change = f"{(new / old - 1) * 100:+.0f} %" if old and new is not None else ABSENT
    return [metric.heading, metric.text(old), metric.text(new), change]


def _backends(runs: Sequence[Run]) -> str:
    """Each backend's best cell among those that only its own choice sets apart."""
    cells = select_candidates(summarise_cells(runs)).cells
    by_backend: dict[tuple[str, str], list[CellSummary]] = {}
    for cell in cells:
        key = (cell.flat.get("backend", ABSENT), cell.flat.get("quant", ABSENT))
        by_backend.setdefault(key, []).append(cell)
    rows = []
    for (backend, quant), members in by_backend.items():
        best = best_of(members, lambda cell: cell.throughput, max)
        assert best is not None
        rows.append([
            backend, quant, str(best.runs[0].result.model.get("device", ABSENT)),
            load_description(best.runs[0].result.config),
            estimate_text(best.throughput),
            *(metric_text(metric, best.metrics) for metric in _BACKEND_METRICS),
            best.name,
        ])  # fmt: skip
    if not rows:
        return ""
    headers = ["backend", "precision", "device", "fastest at", catalogue.PAIRS_PER_S.heading,
               *(metric.heading for metric in _BACKEND_METRICS), "run"]  # fmt: skip
    align = "llllr" + "".join(metric.align for metric in _BACKEND_METRICS) + "l"
    return (
        f"{markdown_table(headers, rows, align)}\n\nDevice memory is that of a "
        "GPU; on a CPU the resident set holds all."
    )


def _ranges(runs: Sequence[Run]) -> str:
    """The reference's table, over the requests of every cell that served a model."""
    chosen = {
        run.name for cell in select_candidates(summarise_cells(runs)).cells for run in cell.runs
    }
    records: list[RequestRecord] = [
        record for run in runs if run.name in chosen for record in run.records
    ]
    rows = [
        [row.label, number(row.mean_pairs_per_s), number(row.min_pairs_per_s),
         number(row.max_pairs_per_s), str(row.requests)]
        for row in latency_range_table(records)
    ]  # fmt: skip
    if not rows:
        return ""
    headers = ["latency", "average (pairs/s)", "min (pairs/s)", "max (pairs/s)", "requests"]
    return (
        f"{markdown_table(headers, rows, 'lrrrr')}\n\nOf single requests (a request's pairs over "
        f"its latency), over {counted(len(chosen), 'run')}; the ranges are of all their latencies "
        "together."
    )


def _one(study: Study) -> str:
    headers, rows, align = summary_rows([run.result for run in study.runs], reasons=False)
    table = markdown_table(headers, rows, align)
    link = f"[Its report]({study.name}/{REPORT_FILE})"
    return "\n\n".join(filter(None, [question(study.runs), table, unfinished(study.cells), link]))


def _skipped(state: SuiteState) -> str:
    rows = [[name, reason] for name, reason in state.skipped.items()]
    return markdown_table(["study", "why"], rows) if rows else ""


def _anchor(title: str) -> str:
    """As GitHub and most renderers make it of a heading."""
    return title.lower().replace(" ", "-")
