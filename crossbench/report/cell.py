"""The report of one cell, written from its result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossbench.load.schedule import SCHEDULE_FILE
from crossbench.measure.catalogue import P95_LATENCY, REQUESTS_FAILED, throughput
from crossbench.measure.statistics import summarise
from crossbench.report import sections
from crossbench.report.axes import flatten, label
from crossbench.report.columns import requests_ok, text_with_unit
from crossbench.report.drawing import Draw, draw
from crossbench.report.ending import ending
from crossbench.report.facts import MACHINE, MODEL, facts
from crossbench.report.predecessor import predecessor_section
from crossbench.report.ranking import cell_quality
from crossbench.results import Flag, RunResult, Status, load_cell
from crossbench.system.files import atomic_write
from crossbench.types import RequestRecord
from crossbench.wording import counted

REPORT_FILE = "report.md"
PLOTS_FOLDER = "plots"


def write_cell_report(folder: Path) -> Path:
    """Write `report.md` and `plots/` from the cell's files in `folder`; return the report's path.

    Raises:
        ResultError: `folder` contains no readable result.
    """
    result, records = load_cell(folder)
    unit = result.task.unit
    plots = draw(lambda: _plots(records, folder / PLOTS_FOLDER, unit))
    metrics = {**(summarise(records, result.task) if records else {}), **result.metrics}
    metrics = {name: value for name, value in metrics.items() if value is not None}
    parts = [
        _head(result, records, metrics),
        _failure(result),
        ending(result, records, metrics),
        sections.summary(records, metrics, unit),
        sections.steps(result, records),
        sections.latency(records, metrics, has_schedule=(folder / SCHEDULE_FILE).is_file()),
        *plots.markdown(folder),
        sections.ranges(records, unit),
        sections.correlations(records, unit),
        sections.stages(metrics),
        *(sections.resources(title, view, metrics) for title, view in sections.RESOURCES.items()),
        cell_quality(result.quality, metrics),
        predecessor_section([(label(result.config), result)]),
        sections.dataset(result.dataset),
        facts("Model", result.model, MODEL),
        facts("Configuration", flatten(result.config), {}),
        facts("Environment", result.environment, MACHINE),
    ]
    path = folder / REPORT_FILE
    with atomic_write(path) as partial:
        partial.write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")
    return path


def _plots(records: Sequence[RequestRecord], folder: Path, unit: str) -> Mapping[str, Draw]:
    from crossbench.report.cell_plots import cell_plots

    return cell_plots(records, folder, unit)


def _head(result: RunResult, records: Sequence[RequestRecord], metrics: Mapping[str, float]) -> str:
    lines = [f"# {label(result.config) or 'cell'}", _answer(result, records, metrics)]
    notes = [str(note) for note in (result.model.get("caveat"), *result.warnings) if note]
    if failed := int(metrics.get(REQUESTS_FAILED.name, 0)):
        total = failed + requests_ok(metrics)
        codes = sorted({record.status for record in records if not record.ok})
        notes.append(
            f"{failed} of {total} requests failed ({', '.join(codes) or 'status unknown'}). All "
            "other numbers are of the requests that succeeded."
        )
    return "\n\n".join([*lines, *(f"> **Note:** {' '.join(note.split())}" for note in notes)])


def _answer(
    result: RunResult, records: Sequence[RequestRecord], metrics: Mapping[str, float]
) -> str:
    if result.status != Status.FINISHED:
        reason = (result.error or "no reason was recorded").strip().splitlines()[0]
        return f"**{result.status}**: {reason}"
    ok, unit = requests_ok(metrics), result.task.unit
    rate = throughput(unit)
    if not ok or rate.name not in metrics:
        return "**No request succeeded**, so no speed was measured."
    sizes = sorted({record.pairs for record in records if record.ok})
    size = f" of {counted(sizes[0], unit.removesuffix('s'))}" if len(sizes) == 1 else ""
    if Flag.OVER_SATURATED in result.flags:
        return (
            f"**Over-saturated**: {result.flags[Flag.OVER_SATURATED]} It sustained "
            f"{text_with_unit(rate, metrics)}."
        )
    return (
        f"**{text_with_unit(rate, metrics)} at a {P95_LATENCY.title} of "
        f"{text_with_unit(P95_LATENCY, metrics)}**, over {counted(ok, 'request')}{size}."
    )


def _failure(result: RunResult) -> str:
    if result.status == Status.FINISHED or not result.error:
        return ""
    body = "\n".join("    " + line for line in result.error.strip().splitlines())
    return f"## Why the cell did not finish\n\n{body}"
