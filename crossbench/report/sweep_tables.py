"""The table of all cells in a sweep's report, and the parts that it shares with the terminal's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.load.saturation import rejected_share
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, REQUESTS_PER_S
from crossbench.measure.metric import View
from crossbench.measure.ranking import Verdict
from crossbench.report.advice.candidates import NOT_VERIFIED
from crossbench.report.axes import axis_headings
from crossbench.report.best import BEST_MARK, MAYBE_MARK, Best, best_cells, contenders, mark
from crossbench.report.cell import REPORT_FILE
from crossbench.report.cells import CellSummary, Estimate, rate_unit
from crossbench.report.columns import columns
from crossbench.report.flags import GROWING, latency_text, legend
from crossbench.report.machines import machine_names, machines_of
from crossbench.report.markdown import Folded, Section
from crossbench.report.scope import interval_scope
from crossbench.report.tables import markdown_table, plus_minus
from crossbench.report.verdicts import SweepVerdicts
from crossbench.wording import ABSENT, number, percent

_WIDE = 0.3  # an interval of more than this share of the value is given by its two ends


def all_cells(
    cells: Sequence[CellSummary], axes: Sequence[str], folder: Path, verdicts: SweepVerdicts
) -> list[Section]:
    """The report's table of all cells, and the legend of its marks, folded; empty without cells."""
    if not cells:
        return []
    found = best_cells(cells, verdicts)
    metrics = columns(View.SWEEP, [cell.metrics for cell in cells])
    checked = any(verdict_text(cell) != ABSENT for cell in cells)
    paced = any(cell.is_paced for cell in cells)
    rejected = any(_rejected(cell) for cell in cells)
    throughput = f"{PAIRS_PER_S.title} ({rate_unit(cells)})"
    machines = len(machines_of([run for cell in cells for run in cell.runs])) > 1
    headers = ["folder", *_headings(axes), *["machine"] * machines, "status",
               *["answered (requests/s)"] * paced, *["rejected (%)"] * rejected, throughput,
               *(metric.heading for metric in metrics), *["ranking"] * checked]  # fmt: skip
    rows = []
    for cell in cells:
        texts = {metric: latency_text(metric, cell) for metric in metrics}
        if P95_LATENCY in texts:
            lowest = found.lowest_p95_at_load(cell)
            texts[P95_LATENCY] = _marked(texts[P95_LATENCY], cell, lowest)
        rows.append([
            ", ".join(_link(run.name, folder) for run in cell.runs),
            *axis_values(cell, axes),
            *[machine_names(cell)] * machines,
            cell.status,
            *[number(cell.metrics.get(REQUESTS_PER_S.name))] * paced,
            *[percent(_rejected(cell), 1).removesuffix(" %")] * rejected,
            _marked(estimate_text(cell.throughput), cell, found.fastest),
            *texts.values(),
            *[verdict_text(cell)] * checked,
        ])  # fmt: skip
    left = 2 + len(_headings(axes)) + machines
    table = markdown_table(headers, rows, "l" * left + "r" * (len(headers) - left))
    return [f"## All cells\n\n{table}", Folded("Marks and intervals", _legend(cells, found))]


def _rejected(cell: CellSummary) -> float:
    """The share of the cell's requests that the server rejected, over all its runs."""
    return rejected_share([record for run in cell.runs for record in run.records])


def verdict_text(cell: CellSummary) -> str:
    if cell.verdict is None or cell.verdict is Verdict.UNCHECKED:
        return ABSENT
    return "✗ changes" if cell.disqualified else cell.verdict.value


def _marked(text: str, cell: CellSummary, best: Sequence[CellSummary]) -> str:
    marked = f"{mark(cell, best)}{text}"
    return f"**{marked}**" if marked.startswith(BEST_MARK) else marked


def _legend(cells: Sequence[CellSummary], found: Best) -> str:
    measured = [cell for cell in cells if cell.throughput is not None]
    if not measured:
        return "No cell was measured."
    notes = []
    candidates = found.candidates
    if contenders(candidates):
        at_load = " (of an open loop: of the cells with its rate)" if found.by_load else ""
        of_all = "" if len(candidates.cells) == len(measured) else " of the compared cells"
        notes.append(
            f"`{BEST_MARK.strip()}` marks the best cell{of_all}{at_load}: every other one is shown "
            f"to be worse. `{MAYBE_MARK.strip()}` marks each cell that may be the best."
        )
    notes += _interval_notes(cells, measured)
    notes.append(
        "`~` marks an unreliable percentile: fewer than five requests lie beyond it, so it has no "
        "interval and is not compared."
    )
    if any(cell.over_saturated for cell in cells):
        notes.append(f"`{GROWING}`: the latency grew for as long as the run lasted.")
    notes += [f"{text.partition(' ')[2].capitalize()}." for text in legend(cells)]
    if any(cell.is_paced for cell in cells):
        notes.append(
            "In an open loop below capacity, throughput is that of the load, so it is not compared."
        )
    if NOT_VERIFIED in candidates.excluded.values():
        notes.append("Lower precisions whose ranking is not verified are never the best either.")
    if any(cell.verdict not in (None, Verdict.UNCHECKED) for cell in cells):
        notes.append(
            "The columns tau and ranking are explained under Ranking quality below. A cell that "
            "changes the ranking (`✗`) is never the best."
        )
    return " ".join(notes)


def _interval_notes(cells: Sequence[CellSummary], measured: Sequence[CellSummary]) -> list[str]:
    """What the intervals of these cells are of, and why some cells have none."""
    if any(cell.throughput and cell.throughput.half_width is not None for cell in measured):
        wide = any(" to " in estimate_text(cell.throughput) for cell in measured)
        sign = "±, or a range in brackets," if wide else "±"
        return [
            "Throughput and p95 are geometric means over the repeats, other values arithmetic "
            f"ones. {sign} is the 95 % interval {interval_scope(cells)}."
        ]
    if any(cell.repeated for cell in measured):
        return [
            "Throughput and p95 are geometric means over the repeats, other values arithmetic "
            "ones. No value has a ±, because that takes at least three repeats."
        ]
    return [
        "No value has a ±, because each cell was measured once: only repeats show how much another "
        "run would differ. The interval within a run is in the report of its cell."
    ]


def estimate_text(estimate: Estimate | None) -> str:
    if estimate is None:
        return ABSENT
    half, value = estimate.half_width, estimate.value
    if half is None or estimate.below is None or estimate.above is None:
        return number(value)
    if half > _WIDE * value:  # then both distances differ much
        return f"{number(value)} ({number(value - estimate.below)} to {number(value + half)})"
    return plus_minus(value, half)


def unfinished(cells: Sequence[CellSummary]) -> str:
    """A list of the reasons why cells did not finish: each once and in full, with its cells."""
    names_by_reason: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for run in cell.failures:
            reason = " ".join((run.result.error or "no reason was recorded").split())
            name = (
                f"{cell.label} (folder {run.name})" if run.result.config else f"folder {run.name}"
            )
            names_by_reason.setdefault((str(run.result.status), reason), []).append(name)
    return "\n".join(
        f"- {', '.join(names)}: **{status}**: {reason}"
        for (status, reason), names in names_by_reason.items()
    )


def _link(name: str, folder: Path) -> str:
    return f"[{name}]({name}/{REPORT_FILE})" if (folder / name / REPORT_FILE).exists() else name


def _headings(axes: Sequence[str]) -> list[str]:
    return axis_headings(axes) or ["name"]


def axis_values(cell: CellSummary, axes: Sequence[str]) -> list[str]:
    if not axes or not cell.flat:
        return [cell.label, *([ABSENT] * (len(axes) - 1))]
    return [cell.flat.get(axis, ABSENT) for axis in axes]
