"""The tables of a sweep's cells: the one in the report and the short one for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.measure.metric import View
from crossbench.measure.ranking import Verdict
from crossbench.report.advice.candidates import Candidates, select_candidates
from crossbench.report.axes import label, varying
from crossbench.report.cell import REPORT_FILE
from crossbench.report.columns import columns, metric_text
from crossbench.report.compare import (
    CellSummary,
    Estimate,
    Run,
    distinguishable,
    rate_unit,
    ratio,
    summarise_cells,
)
from crossbench.report.tables import (
    cut,
    markdown_table,
    plain_table,
    plus_minus,
    shorten,
)
from crossbench.results import Flag, RunResult, Status
from crossbench.wording import ABSENT, number

_SAME_MARK = "≈ "
# Most characters in one column of the terminal's table
_TERMINAL_VALUE = 28
_TERMINAL_REASON = 60
GetEstimate = Callable[[CellSummary], Estimate | None]


def summary_rows(
    results: Sequence[RunResult], *, reasons: bool
) -> tuple[list[str], list[list[str]], str]:
    """Return headers, rows and alignment of the short table: one row per cell.

    The throughput column is the first right-aligned one. `*` marks the highest throughput and `≈`
    those that are not distinguishable from it. Cells that are excluded (see `select_candidates`)
    have no mark, or `✗` if they change the ranking, or `!` if they were over-saturated. With
    `reasons`, the status of a cell that did not finish is followed by the start of its error
    message.
    """
    cells = summarise_cells([Run(str(index), result) for index, result in enumerate(results)])
    axes = varying([result.config for result in results])
    candidates = select_candidates(cells)
    best = best_of(contenders(candidates), lambda cell: cell.throughput, max)
    metrics = columns(View.TERMINAL, [cell.metrics for cell in cells])
    headers = [*_axis_names(axes), rate_unit(cells), *(metric.heading for metric in metrics)]
    align = "l" * (len(headers) - len(metrics) - 1) + PAIRS_PER_S.align
    align += "".join(metric.align for metric in metrics)
    rows = []
    for cell in cells:
        mark = ""
        if cell.disqualified and cell.throughput is not None:
            mark = "✗ "
        elif Flag.OVER_SATURATED in cell.flags:
            mark = "! "
        elif best is not None and candidates.contains(cell):
            mark = "* " if cell is best else same_mark(cell.throughput, best.throughput)
        width = _TERMINAL_VALUE if axes else _TERMINAL_REASON
        rows.append([
            *(shorten(text, width) for text in _axis_values(cell, axes)),
            mark + estimate_text(cell.throughput),
            *(metric_text(metric, cell.metrics) for metric in metrics),
        ])  # fmt: skip
    compared = [cell for cell in cells if cell.verdict is not Verdict.REFERENCE]
    if any(verdict_text(cell) != ABSENT for cell in compared):
        headers.append("ranking")
        for row, cell in zip(rows, cells, strict=True):
            row.append(verdict_text(cell))
    if any(cell.failures for cell in cells):
        headers.append("status")
        for row, cell in zip(rows, cells, strict=True):
            why = f": {reason_of(cell.failures[0])}" if cell.failures and reasons else ""
            row.append(cell.status + cut(why, _TERMINAL_REASON))
    return headers, rows, align.ljust(len(headers), "l")


def terminal_table(results: Sequence[RunResult]) -> str:
    """The short table as text, with a legend of the marks that it uses."""
    headers, rows, align = summary_rows(results, reasons=True)
    rate_column = align.index("r")
    lines = [plain_table(headers, rows, align)]
    throughput = " ".join(row[rate_column] for row in rows)
    legend = {
        "*": _best_text(results),
        "✗": "✗ changes the ranking, so it is excluded",
        "!": "! over-saturated, so it is excluded: this is what the server sustained",
        _SAME_MARK.strip(): "≈ not distinguishable from the highest",
        "±": "± 95 % interval",
    }
    used = [text for mark, text in legend.items() if mark in throughput]
    if any("±" not in row[rate_column] != ABSENT for row in rows):
        used.append("no ±: spread unknown")
    if any("~" in cell for row in rows for cell in row[rate_column:]):
        used.append("~ unreliable: fewer than five requests lie beyond this percentile")
    lines += ["", "; ".join(used)] if used else []
    if len(results) > 1 and (why := _cut_reasons(results)):
        lines += ["", *why]
    return "\n".join(lines)


def _best_text(results: Sequence[RunResult]) -> str:
    """What `*` means. Gives the reasons if there are excluded cells that have no mark."""
    cells = summarise_cells([Run(str(index), result) for index, result in enumerate(results)])
    excluded = select_candidates(cells).excluded
    reasons = dict.fromkeys(
        excluded[cell.label]
        for cell in cells
        if cell.throughput is not None
        and cell.label in excluded
        and not cell.disqualified
        and Flag.OVER_SATURATED not in cell.flags
    )
    if not reasons:
        return "* highest throughput"
    return f"* highest throughput of the compared cells (others excluded: {', '.join(reasons)})"


def _cut_reasons(results: Sequence[RunResult]) -> list[str]:
    """The error messages that the table had to cut, each once, in full and with its cells."""
    axes = varying([result.config for result in results])
    cells_by_reason: dict[str, list[str]] = {}
    for result in results:
        reason = " ".join((result.error or "").split())
        if result.status is not Status.FINISHED and len(reason) > _TERMINAL_REASON - 2:
            names = cells_by_reason.setdefault(f"{result.status}: {reason}", [])
            names.append(label(result.config, axes))
    return [f"{', '.join(names)}: {reason}" for reason, names in cells_by_reason.items()]


def all_cells(cells: Sequence[CellSummary], axes: Sequence[str], folder: Path) -> str:
    """The report's table of all cells, with the legend of its marks; empty without cells."""
    if not cells:
        return ""
    candidates = select_candidates(cells)
    fastest = best_of(contenders(candidates), lambda cell: cell.throughput, max)
    lowest_p95 = best_of(contenders(candidates), lambda cell: cell.p95, min)
    first = next((cell for cell in cells if cell.throughput is not None), None)
    metrics = columns(View.SWEEP, [cell.metrics for cell in cells])
    checked = any(verdict_text(cell) != ABSENT for cell in cells)
    throughput = f"{PAIRS_PER_S.title} ({rate_unit(cells)})"
    headers = ["cell", *_axis_names(axes), "status", throughput, "speed-up",
               *(metric.heading for metric in metrics), *(["ranking"] * checked)]  # fmt: skip
    rows = []
    for cell in cells:
        texts = {metric: metric_text(metric, cell.metrics) for metric in metrics}
        if P95_LATENCY in texts:
            texts[P95_LATENCY] = _marked(texts[P95_LATENCY], cell, lowest_p95, candidates, _p95)
        rows.append([
            ", ".join(_link(run.name, folder) for run in cell.runs),
            *_axis_values(cell, axes),
            cell.status,
            _marked(estimate_text(cell.throughput), cell, fastest, candidates, _throughput),
            _speedup_text(cell, first),
            *texts.values(),
            *([verdict_text(cell)] * checked),
        ])  # fmt: skip
    right = 2 + len(metrics) + checked
    align = "l" * (len(headers) - right) + "r" * right
    table = markdown_table(headers, rows, align)
    return f"## All cells\n\n{table}\n\n{_legend(cells, candidates)}"


def _throughput(cell: CellSummary) -> Estimate | None:
    return cell.throughput


def _p95(cell: CellSummary) -> Estimate | None:
    return cell.p95


def verdict_text(cell: CellSummary) -> str:
    if cell.verdict is None or cell.verdict is Verdict.UNCHECKED:
        return ABSENT
    return "✗ changes" if cell.disqualified else cell.verdict.value


def _marked(
    text: str, cell: CellSummary, best: CellSummary | None, candidates: Candidates, get: GetEstimate
) -> str:
    if cell is best:
        return f"**{text}**"
    if best is None or not candidates.contains(cell):
        return text
    return same_mark(get(cell), get(best)) + text


def _speedup_text(cell: CellSummary, first: CellSummary | None) -> str:
    if first is None or first.throughput is None or cell.throughput is None:
        return ABSENT
    if cell.unit != first.unit:
        return ABSENT
    if cell is first:
        return "1×"
    text = f"{number(ratio(cell.throughput, first.throughput).value)}×"
    apart = distinguishable(cell.throughput, first.throughput)
    return f"{text} ?" if apart is None else text if apart else _SAME_MARK + text


def _legend(cells: Sequence[CellSummary], candidates: Candidates) -> str:
    measured = [cell for cell in cells if cell.throughput is not None]
    if not measured:
        return "No cell was measured."
    notes = []
    if len(measured) > 1:
        best = "cell" if len(candidates.cells) == len(measured) else "of the compared cells"
        bold = f"Bold marks the best {best}. " if contenders(candidates) else ""
        notes.append(
            f"{bold}`≈`: the difference from the best cell (in the speed-up column, from the first "
            "measured cell) is within the 95 % intervals, so it may be chance."
        )
    if any(cell.finished > 1 for cell in cells):
        notes.append(
            "Values are means over the repeats. ± is the 95 % interval of the mean; the relative "
            "spread between repeats is pooled over all cells."
        )
    elif any(cell.throughput and cell.throughput.half_width is not None for cell in measured):
        notes.append(
            "± is the 95 % interval, estimated from the time windows within one run; the interval "
            "of p95 comes from its order statistics. Neither shows how much a second run would "
            "differ: `repeat=1,2,3` measures that."
        )
    if any(cell.throughput and cell.throughput.half_width is None for cell in measured):
        notes.append(
            "A value without ± comes from a run with too few time windows to estimate its spread, "
            "so a difference from it may be chance (`?`)."
        )
    notes.append("`~` marks an unreliable percentile: fewer than five requests lie beyond it.")
    if any(cell.verdict not in (None, Verdict.UNCHECKED) for cell in cells):
        notes.append(
            "The columns tau and ranking are explained under Ranking quality below. A cell that "
            "changes the ranking (`✗`) is never the best."
        )
    return " ".join(notes)


def contenders(candidates: Candidates) -> Sequence[CellSummary]:
    """The cells of which one can be called the best; empty if there is nothing to compare."""
    return candidates.cells if candidates.comparable > 1 else ()


def best_of(
    cells: Sequence[CellSummary],
    get: GetEstimate,
    pick: Callable[[list[float]], float],
) -> CellSummary | None:
    """The cell with the highest (`pick=max`) or lowest (`pick=min`) value; None without a value."""
    found = [(value, cell) for cell in cells if (value := get(cell)) is not None]
    if not found:
        return None
    wanted = pick([value.value for value, _ in found])
    return next(cell for value, cell in found if value.value == wanted)


def same_mark(a: Estimate | None, b: Estimate | None) -> str:
    if a is None or b is None or a is b:
        return ""
    return _SAME_MARK if distinguishable(a, b) is False else ""


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


def reason_of(run: Run) -> str:
    return (run.result.error or "no reason was recorded").strip().splitlines()[0]


def _link(name: str, folder: Path) -> str:
    return f"[{name}]({name}/{REPORT_FILE})" if (folder / name / REPORT_FILE).exists() else name


def _axis_names(axes: Sequence[str]) -> list[str]:
    last = [axis.rsplit(".", 1)[-1] for axis in axes]
    names = [
        short if last.count(short) == 1 else axis for axis, short in zip(axes, last, strict=True)
    ]
    return names or ["name"]


def _axis_values(cell: CellSummary, axes: Sequence[str]) -> list[str]:
    if not axes or not cell.flat:
        return [cell.label, *([ABSENT] * (len(axes) - 1))]
    return [cell.flat.get(axis, ABSENT) for axis in axes]
