"""The report of one cell, written from its result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossbench.load.labels import is_offline, is_ramp
from crossbench.load.saturation import rejected_share
from crossbench.load.schedule import SCHEDULE_FILE
from crossbench.measure.catalogue import P95_LATENCY, REQUESTS_FAILED, throughput
from crossbench.measure.scraped import SCRAPE_FILE, load_scraped
from crossbench.measure.statistics import summarise
from crossbench.measure.steps import Step
from crossbench.report import sections
from crossbench.report.axes import label
from crossbench.report.cells import Run
from crossbench.report.columns import requests_ok, text_with_unit
from crossbench.report.configuration import configuration
from crossbench.report.drawing import Draw, Plots, draw
from crossbench.report.ending import ending
from crossbench.report.facts import MACHINE, MODEL, facts
from crossbench.report.flags import cell_notes, over_saturated_text
from crossbench.report.markdown import markdown
from crossbench.report.predecessor import predecessor_section
from crossbench.report.ranking import cell_quality
from crossbench.report.rate_answer import latency_bound_ms, rate_answers
from crossbench.report.steps import best_step, steps_section
from crossbench.report.summaries import summarise_cells
from crossbench.results import Flag, RunResult, Status, load_cell
from crossbench.system.files import atomic_write
from crossbench.types import RequestRecord
from crossbench.wording import counted, percent

REPORT_FILE = "report.md"
PLOTS_FOLDER = "plots"


def write_cell_report(folder: Path) -> Path:
    """Write `report.md` and `plots/` from the cell's files in `folder`; return the report's path.

    Raises:
        ResultError: `folder` contains no readable result.
    """
    result, records = load_cell(folder)
    unit = result.task.unit
    offline = is_offline(result.config)
    has_schedule = offline or (folder / SCHEDULE_FILE).is_file()
    steps = [Step(**step) for step in result.steps]
    name = label(result.config)
    plots = draw(lambda: _plots(records, folder / PLOTS_FOLDER, name, unit, steps, has_schedule))
    was_scraped = (folder / SCRAPE_FILE).is_file()
    scrape_plots = draw(lambda: _scrape_plots(folder, name)) if was_scraped else Plots()
    metrics = {**(summarise(records, result.task) if records else {}), **result.metrics}
    metrics = {name: value for name, value in metrics.items() if value is not None}
    parts = [
        _head(result, records, metrics),
        _failure(result),
        ending(result, records, metrics),
        sections.summary(records, metrics, unit),
        steps_section(result, records),
        sections.latency(
            records,
            metrics,
            has_schedule=has_schedule,
            offline=offline,
            over_saturated=Flag.OVER_SATURATED in result.flags,
        ),
        *plots.markdown(folder),
        sections.ranges(records, unit),
        sections.correlations(records, unit),
        sections.stages(metrics),
        *(sections.resources(title, view, metrics) for title, view in sections.RESOURCES.items()),
        sections.scraped(metrics),
        *scrape_plots.markdown(folder),
        cell_quality(result.quality, metrics),
        predecessor_section([(label(result.config), result)]),
        sections.dataset(result.dataset),
        facts("Model", result.model, MODEL),
        *configuration(result.config),
        facts("Environment", result.environment, MACHINE),
    ]
    path = folder / REPORT_FILE
    with atomic_write(path) as partial:
        partial.write_text(markdown(parts), "utf-8")
    return path


def _plots(
    records: Sequence[RequestRecord],
    folder: Path,
    name: str,
    unit: str,
    steps: Sequence[Step],
    has_schedule: bool,
) -> Mapping[str, Draw]:
    from crossbench.report.cell_plots import cell_plots

    return cell_plots(records, folder, unit, steps, name=name, has_schedule=has_schedule)


def _scrape_plots(folder: Path, name: str) -> Mapping[str, Draw]:
    from crossbench.report.scrape_plots import scrape_plots

    return scrape_plots(load_scraped(folder), folder / PLOTS_FOLDER, name)


def _head(result: RunResult, records: Sequence[RequestRecord], metrics: Mapping[str, float]) -> str:
    lines = [f"# {label(result.config) or 'cell'}", *_answer(result, records, metrics)]
    notes = [str(note) for note in (result.model.get("caveat"), *cell_notes(result)) if note]
    if failed := int(metrics.get(REQUESTS_FAILED.name, 0)):
        total = failed + requests_ok(metrics)
        codes = sorted({record.status for record in records if not record.ok})
        rejected = rejected_share(records)
        why = ", because its queue was full"
        notes.append(
            f"{failed} of {total} requests failed ({', '.join(codes) or 'status unknown'})."
            + (f" The server rejected {percent(rejected, 1)} of all{why}." if rejected else "")
            + " All other numbers are of the requests that succeeded."
        )
    marked = [note if note.startswith("**") else f"**Note:** {note}" for note in notes]
    return "\n\n".join([*lines, *(f"> {' '.join(note.split())}" for note in marked)])


def _answer(
    result: RunResult, records: Sequence[RequestRecord], metrics: Mapping[str, float]
) -> list[str]:
    """The first lines: throughput and p95, or what the rates of a ramp showed."""
    if result.status != Status.FINISHED:
        reason = (result.error or "no reason was recorded").strip().splitlines()[0]
        return [f"**{result.status}**: {reason}"]
    ok, unit = requests_ok(metrics), result.task.unit
    rate = throughput(unit)
    if not ok or rate.name not in metrics:
        return ["**No request succeeded**, so no speed was measured."]
    run = Run("", result, records)
    if is_ramp(result.config):
        answers = rate_answers(summarise_cells([run]), [], latency_bound_ms([result]))
        level = best_step(run)
        return [*answers, *([f"{level[:1].upper()}{level[1:]}"] if level else [])]
    sizes = sorted({record.pairs for record in records if record.ok})
    size = f" of {counted(sizes[0], unit.removesuffix('s'))}" if len(sizes) == 1 else ""
    if Flag.OVER_SATURATED in result.flags:
        sustained = text_with_unit(rate, metrics)
        return [f"**Over-saturated: it sustained {sustained}.** {over_saturated_text(result)}"]
    return [
        f"**{text_with_unit(rate, metrics)} at a {P95_LATENCY.title} of "
        f"{text_with_unit(P95_LATENCY, metrics)}**, over {counted(ok, 'request')}{size}."
    ]


def _failure(result: RunResult) -> str:
    if result.status == Status.FINISHED or not result.error:
        return ""
    body = "\n".join("    " + line for line in result.error.strip().splitlines())
    return f"## Why the cell did not finish\n\n{body}"
