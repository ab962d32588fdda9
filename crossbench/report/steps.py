"""The steps of a ramp: their table, and the best step of a ramp of concurrency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossbench.load.labels import is_paced
from crossbench.measure import catalogue
from crossbench.measure.catalogue import P95_LATENCY, REQUESTS_PER_S
from crossbench.measure.steps import Step, step_metrics
from crossbench.report.cells import CellSummary, Run
from crossbench.report.columns import metric_text, requests_ok, text_with_unit
from crossbench.report.flags import GROWING
from crossbench.report.rates import Cause, over_saturated_steps
from crossbench.report.tables import markdown_table
from crossbench.results import RunResult, Status
from crossbench.types import RequestRecord
from crossbench.wording import ABSENT, number

_PERCENTILES = (50, 95, 99)


def steps_section(result: RunResult, records: Sequence[RequestRecord]) -> str:
    """The table of a ramp's steps; empty for another load."""
    ramp = [Step(**step) for step in result.steps]
    if not ramp:
        return ""
    rate = catalogue.throughput(result.task.unit)
    over_saturated = over_saturated_steps(Run("", result, records))
    heads = [rate.heading, REQUESTS_PER_S.heading, *(catalogue.latency(q).heading
             for q in _PERCENTILES)]  # fmt: skip
    rows = []
    for place, (step, metrics) in enumerate(
        zip(ramp, step_metrics(ramp, records, result.task), strict=True)
    ):
        cause = over_saturated.get(place)
        failed = int(metrics.get(catalogue.REQUESTS_FAILED.name, 0))
        status = "over-saturated" if cause else "" if metrics else "not reached"
        rows.append([
            step.label, metric_text(rate, metrics), metric_text(REQUESTS_PER_S, metrics),
            *(_latency(q, metrics, grew=cause is Cause.GROWTH) for q in _PERCENTILES),
            str(requests_ok(metrics)), str(failed), status,
        ])  # fmt: skip
    headers = [_step_heading(result), *heads, "requests", "failed", "status"]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    align = "l" + "r" * (len(heads) + 2) + "l"
    length_s = number(ramp[0].end_s - ramp[0].start_s)
    grown = (
        f" `{GROWING}`: the latency grew until the ramp ended, so it is not that of this rate."
        if Cause.GROWTH in over_saturated.values()
        else ""
    )
    return (
        f"## Steps of the ramp\n\n{markdown_table(headers, rows, align[: len(headers)])}"
        f"\n\nEach step was planned to last {length_s} s. A request belongs to the step in which "
        f"it was due.{grown} All other numbers of this report are of all steps together."
    )


def best_level(cell: CellSummary) -> str:
    """The step of a ramp of concurrency with the highest throughput; empty for another load."""
    run = next((run for run in cell.runs if run.result.status == Status.FINISHED), None)
    return "" if run is None else f"**{cell.label}**: {text}" if (text := best_step(run)) else ""


def best_step(run: Run) -> str:
    """The step with the highest throughput as a sentence; empty if the load is no such ramp."""
    result = run.result
    if not result.steps or is_paced(result.config):
        return ""
    ramp = [Step(**step) for step in result.steps]
    rate = catalogue.throughput(result.task.unit)
    found = [
        (metrics[rate.name], step.label, metrics)
        for step, metrics in zip(ramp, step_metrics(ramp, run.records, result.task), strict=True)
        if rate.name in metrics
    ]
    if not found:
        return ""
    _, label, metrics = max(found, key=lambda item: item[0])
    return (
        f"highest throughput at {label}: {text_with_unit(rate, metrics)} at a {P95_LATENCY.short} "
        f"of {text_with_unit(P95_LATENCY, metrics)}. The intervals of single steps are n/a."
    )


def _step_heading(result: RunResult) -> str:
    return "requests/s offered" if is_paced(result.config) else "requests in flight"


def _latency(q: int, metrics: Mapping[str, float], *, grew: bool) -> str:
    metric = catalogue.latency(q)
    value = metrics.get(metric.name)
    if value is None:
        return ABSENT
    return f"{GROWING}{metric.text(value)}" if grew else metric_text(metric, metrics)
