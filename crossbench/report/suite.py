"""The report of a suite: a section for each study, and tables across all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.load.labels import load_description
from crossbench.measure import catalogue
from crossbench.measure.metric import Metric, View
from crossbench.report.advice.advice import rate
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.advice.recommendations import recommendations
from crossbench.report.cell import REPORT_FILE
from crossbench.report.cells import CellSummary, Run
from crossbench.report.columns import metric_text
from crossbench.report.markdown import markdown, one_line
from crossbench.report.predecessor import predecessor_entries
from crossbench.report.sections import ranges_table
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep import question, read_runs
from crossbench.report.sweep_tables import estimate_text, unfinished
from crossbench.report.tables import markdown_table
from crossbench.report.terminal import summary_rows
from crossbench.system.files import atomic_write
from crossbench.system.json_text import parse_json
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
    """The studies and overrides of a suite, as saved in its folder."""

    studies: tuple[str, ...]
    overrides: tuple[str, ...]
    skipped: Mapping[str, str]  # study: the reason why this machine cannot run it


@dataclass(frozen=True, slots=True)
class Study:
    """One study of a suite; `runs` is empty if it was skipped or has not run yet."""

    name: str
    state: str
    runs: tuple[Run, ...] = ()
    cells: tuple[CellSummary, ...] = ()


def read_suite(folder: Path) -> SuiteState:
    """Read `folder`/suite.json.

    Raises:
        ResultError: the file is missing or is not that of a suite.
    """
    try:
        found = parse_json((folder / SUITE_FILE).read_text("utf-8"))
        return SuiteState(tuple(found["studies"]), tuple(found["overrides"]), found["skipped"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(
            f"{folder} is not the folder of a suite ({error}): give the folder that "
            "`python -m crossbench.suite` printed"
        ) from error


def exit_status(folder: Path) -> int | None:
    """The exit status of the study in `folder`; None if it has not run to its end."""
    try:
        return int(parse_json((folder / STUDY_FILE).read_text("utf-8"))["exit_status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_suite_report(folder: Path) -> Path:
    """Write `report.md` from the results in the studies' folders; return its path."""
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
        *((study.name, _study_section(study)) for study in studies if study.runs),
        ("Skipped studies", _skipped(state)),
    ]
    written = [(title, text) for title, text in sections if text]
    contents = "\n".join(f"- [{title}](#{_anchor(title)})" for title, _ in written)
    done = sum(bool(study.runs) for study in studies)
    progress = f"{done} of {len(studies)} studies have results"
    overrides = (
        f", with {' '.join(f'`{one_line(item)}`' for item in state.overrides)}"
        if state.overrides
        else ""
    )
    parts = [f"# Suite {folder.resolve().name}", f"{progress}{overrides}.", contents]
    parts += [f"## {title}\n\n{text}" for title, text in written]
    path = folder / REPORT_FILE
    with atomic_write(path) as partial:
        partial.write_text(markdown(parts), "utf-8")
    return path


def _read_study(folder: Path, name: str, state: SuiteState) -> Study:
    if name in state.skipped:
        return Study(name, "skipped")
    status = exit_status(folder / name)
    outcome = {None: "not finished", 0: "finished"}.get(status, "finished, but not every cell")
    runs = tuple(read_runs(folder / name)) if (folder / name).is_dir() else ()
    if status is not None and not runs:
        outcome = "did not start"
    return Study(name, outcome, runs, tuple(summarise_cells(runs)))


def _overview(studies: Sequence[Study]) -> str:
    rows = []
    for study in studies:
        best = _highest(select_candidates(study.cells).cells)
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
    headers = ["study", "state", "highest measured", rate, p95, f"predecessor, {rate}"]
    return markdown_table(headers, rows, "lllrrr")


def _baseline_and_optimum(studies: Sequence[Study], runs: Sequence[Run]) -> str:
    baseline = _best_of_role(studies, "baseline")
    optimum = _best_of_role(studies, "optimum")
    if optimum is None:
        best = _highest(select_candidates(summarise_cells(runs)).cells)
        optimum = (f"highest throughput, {best.name}", best) if best else None
    if baseline is None or optimum is None or baseline[1].runs == optimum[1].runs:
        return (
            "Not available: it needs a measured study that is marked as baseline "
            "(`report.baseline` in conf/experiment), and another measured cell."
        )
    compared = catalogue.shown(View.COMPARISON)
    rows = [_change(metric, baseline[1], optimum[1]) for metric in compared]
    headers = ["", f"baseline: {baseline[0]}", f"optimum: {optimum[0]}", "change"]
    shown = [row for row in rows if row[1:] != [ABSENT] * 3]
    return markdown_table(headers, shown, "lrrr")


def _best_of_role(studies: Sequence[Study], role: str) -> tuple[str, CellSummary] | None:
    """Label and highest cell of the first study with `report.<role>` that has a measured cell."""
    marked = [(rank, study) for study in studies if (rank := _role_rank(study, role)) is not None]
    for _, study in sorted(marked, key=lambda item: item[0]):
        kept = [cell for cell in study.cells if not cell.disqualified]
        best = _highest(kept)
        if best is not None:
            return f"{study.name}, {best.flat.get('backend', '')}", best
    return None


def _highest(cells: Sequence[CellSummary]) -> CellSummary | None:
    """The cell with the highest measured throughput; whether it is the fastest is not said."""
    measured = [cell for cell in cells if cell.throughput is not None]
    return max(measured, key=lambda cell: rate(cell).value, default=None)


def _role_rank(study: Study, role: str) -> int | None:
    """The study's `report.<role>`, its rank among the studies of this role; None without one."""
    places = [run.result.config.value(f"report.{role}") for run in study.runs]
    return min((place for place in places if place is not None), default=None)


def _change(metric: Metric, before: CellSummary, after: CellSummary) -> list[str]:
    old, new = before.metrics.get(metric.name), after.metrics.get(metric.name)
    change = f"{(new / old - 1) * 100:+.0f} %" if old and new is not None else ABSENT
    return [metric.heading, metric.text(old), metric.text(new), change]


def _backends(runs: Sequence[Run]) -> str:
    """The cell with the highest measured throughput of each backend and precision."""
    cells = select_candidates(summarise_cells(runs)).cells
    by_backend: dict[tuple[str, str], list[CellSummary]] = {}
    for cell in cells:
        key = (cell.flat.get("backend", ABSENT), cell.flat.get("quant", ABSENT))
        by_backend.setdefault(key, []).append(cell)
    rows = []
    for (backend, quant), members in by_backend.items():
        best = _highest(members)
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
    headers = ["backend", "precision", "device", "highest at", catalogue.PAIRS_PER_S.heading,
               *(metric.heading for metric in _BACKEND_METRICS), "run"]  # fmt: skip
    align = "llllr" + "".join(metric.align for metric in _BACKEND_METRICS) + "l"
    return (
        f"{markdown_table(headers, rows, align)}\n\nDevice memory is GPU memory; on a "
        "CPU, all memory is in the resident set."
    )


def _ranges(runs: Sequence[Run]) -> str:
    """The predecessor's table: throughput by latency range, over the requests of all candidates."""
    chosen = {
        run.name for cell in select_candidates(summarise_cells(runs)).cells for run in cell.runs
    }
    records: list[RequestRecord] = [
        record for run in runs if run.name in chosen for record in run.records
    ]
    table = ranges_table(records, "pairs")
    if not table:
        return ""
    return (
        f"{table}\n\nThe throughput of a single request is its pairs divided by its latency. The "
        f"table covers {counted(len(chosen), 'run')}; the ranges are percentiles of all their "
        "latencies together."
    )


def _study_section(study: Study) -> str:
    headers, rows, align = summary_rows([run.result for run in study.runs], reasons=False)
    table = markdown_table(headers, rows, align)
    link = f"[Report of this study]({study.name}/{REPORT_FILE})"
    return "\n\n".join(filter(None, [question(study.runs), table, unfinished(study.cells), link]))


def _skipped(state: SuiteState) -> str:
    rows = [[name, reason] for name, reason in state.skipped.items()]
    return markdown_table(["study", "why"], rows) if rows else ""


def _anchor(title: str) -> str:
    """The anchor of a heading, as GitHub and most renderers derive it."""
    return title.lower().replace(" ", "-")
