"""The table of all cells in a sweep's report, and the parts that it shares with the terminal's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.load.saturation import rejected_share
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, REQUESTS_PER_S
from crossbench.measure.metric import View
from crossbench.measure.ranking import Verdict
from crossbench.report.advice.candidates import Candidates, by_throughput
from crossbench.report.axes import axis_headings
from crossbench.report.best import (
    SAME_MARK,
    GetEstimate,
    best_cells,
    contenders,
    ranked_p95_of,
    same_mark,
    throughput_of,
)
from crossbench.report.cell import REPORT_FILE
from crossbench.report.cells import CellSummary, Estimate, distinguishable, rate_unit, ratio
from crossbench.report.columns import columns
from crossbench.report.flags import GROWING, latency_text, legend
from crossbench.report.scope import OF_THIS_RUN, interval_scope
from crossbench.report.tables import markdown_table, plus_minus
from crossbench.wording import ABSENT, number, percent


def all_cells(cells: Sequence[CellSummary], axes: Sequence[str], folder: Path) -> str:
    """The report's table of all cells, with the legend of its marks; empty without cells."""
    if not cells:
        return ""
    found = best_cells(cells)
    candidates, first = found.candidates, found.baseline
    lowest_at_rate = [best for best, _ in found.by_load]
    metrics = columns(View.SWEEP, [cell.metrics for cell in cells])
    checked = any(verdict_text(cell) != ABSENT for cell in cells)
    paced = any(cell.is_paced for cell in cells)
    rejected = any(_rejected(cell) for cell in cells)
    throughput = f"{PAIRS_PER_S.title} ({rate_unit(cells)})"
    headers = ["cell", *_headings(axes), "status", *["answered (requests/s)"] * paced,
               *["rejected (%)"] * rejected, throughput, *["speed-up"] * (first is not None),
               *(metric.heading for metric in metrics), *["ranking"] * checked]  # fmt: skip
    rows = []
    for cell in cells:
        texts = {metric: latency_text(metric, cell) for metric in metrics}
        if P95_LATENCY in texts:
            best = cell if cell in lowest_at_rate else found.lowest_p95
            texts[P95_LATENCY] = _marked(texts[P95_LATENCY], cell, best, candidates, ranked_p95_of)
        rows.append([
            ", ".join(_link(run.name, folder) for run in cell.runs),
            *axis_values(cell, axes),
            cell.status,
            *[number(cell.metrics.get(REQUESTS_PER_S.name))] * paced,
            *[percent(_rejected(cell), 1).removesuffix(" %")] * rejected,
            _marked(estimate_text(cell.throughput), cell, found.fastest, candidates, throughput_of),
            *[_speedup_text(cell, first)] * (first is not None),
            *texts.values(),
            *[verdict_text(cell)] * checked,
        ])  # fmt: skip
    left = 2 + len(_headings(axes))
    table = markdown_table(headers, rows, "l" * left + "r" * (len(headers) - left))
    return f"## All cells\n\n{table}\n\n{_legend(cells, candidates)}"


def _rejected(cell: CellSummary) -> float:
    """The share of the cell's requests that the server rejected, over all its runs."""
    return rejected_share([record for run in cell.runs for record in run.records])


def verdict_text(cell: CellSummary) -> str:
    if cell.verdict is None or cell.verdict is Verdict.UNCHECKED:
        return ABSENT
    return "✗ changes" if cell.disqualified else cell.verdict.value


def _marked(
    text: str, cell: CellSummary, best: CellSummary | None, candidates: Candidates, get: GetEstimate
) -> str:
    if cell is best:
        return f"**{text}**"
    if best is None or cell.is_paced or not candidates.contains(cell):
        return text
    return same_mark(get(cell), get(best)) + text


def _speedup_text(cell: CellSummary, first: CellSummary | None) -> str:
    if first is None or first.throughput is None or cell.throughput is None:
        return ABSENT
    if cell.unit != first.unit or cell.is_paced:
        return ABSENT
    if cell is first:
        return "1×"
    text = f"{number(ratio(cell.throughput, first.throughput).value)}×"
    apart = distinguishable(cell.throughput, first.throughput)
    return f"{text} ?" if apart is None else text if apart else SAME_MARK + text


def _legend(cells: Sequence[CellSummary], candidates: Candidates) -> str:
    measured = [cell for cell in cells if cell.throughput is not None]
    if not measured:
        return "No cell was measured."
    notes = []
    if contenders(candidates):
        best = "cell" if len(candidates.cells) == len(measured) else "of the compared cells"
        at_rate = " (of an open loop: the lowest p95 at its rate)" if any(
            cell.is_paced for cell in candidates.cells
        ) else ""  # fmt: skip
        speedup = " (in the speed-up column, from the first measured cell)"
        notes.append(
            f"Bold marks the best {best}{at_rate}. `≈`: the difference from the best cell"
            f"{speedup if by_throughput(measured) else ''} is within the 95 % intervals, so it may "
            "be chance."
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
    if any(cell.verdict not in (None, Verdict.UNCHECKED) for cell in cells):
        notes.append(
            "The columns tau and ranking are explained under Ranking quality below. A cell that "
            "changes the ranking (`✗`) is never the best."
        )
    return " ".join(notes)


def _interval_notes(cells: Sequence[CellSummary], measured: Sequence[CellSummary]) -> list[str]:
    """What the intervals of these cells are of, and why some cells have none."""
    notes, scope = [], interval_scope(cells)
    if scope != OF_THIS_RUN:
        notes.append(
            f"Values are means over the repeats. ± is the 95 % interval {scope}; the relative "
            "spread between repeats is pooled over all cells."
        )
    elif any(cell.throughput and cell.throughput.half_width is not None for cell in measured):
        notes.append(
            f"± is the 95 % interval {scope}, estimated from its time windows; the interval of p95 "
            "comes from its order statistics. Neither shows how much another run of this "
            "configuration would differ: `repeat=1,2,3` measures that."
        )
    if any(cell.throughput and cell.throughput.half_width is None for cell in measured):
        notes.append(
            "A value without ± comes from a run with too few time windows to estimate its spread, "
            "so a difference from it may be chance (`?`)."
        )
    return notes


def estimate_text(estimate: Estimate | None) -> str:
    if estimate is None:
        return ABSENT
    half = estimate.half_width
    return number(estimate.value) if half is None else plus_minus(estimate.value, half)


def unfinished(cells: Sequence[CellSummary]) -> str:
    """A list of the reasons why cells did not finish: each once and in full, with its cells."""
    names_by_reason: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        for run in cell.failures:
            reason = " ".join((run.result.error or "no reason was recorded").split())
            name = f"{run.name} ({cell.label})" if run.result.config else run.name
            names_by_reason.setdefault((str(run.result.status), reason), []).append(name)
    return "\n".join(
        f"- {'Cell' if len(names) == 1 else 'Cells'} {', '.join(names)}: **{status}**: {reason}"
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
