"""The short table of cells for the terminal, for notebooks and for the suite's report."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.measure.metric import View
from crossbench.measure.ranking import Verdict
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.axes import axis_headings, label, varying
from crossbench.report.best import SAME_MARK, fastest_cell, same_mark
from crossbench.report.columns import columns
from crossbench.report.compare import Run, rate_unit, summarise_cells
from crossbench.report.flags import COLUMN, GROWING, latency_text, legend, marks
from crossbench.report.scope import interval_scope
from crossbench.report.sweep_tables import axis_values, estimate_text, reason_of, verdict_text
from crossbench.report.tables import cut, plain_table, shorten, text_width
from crossbench.results import RunResult, Status
from crossbench.wording import ABSENT

WIDTH = 80  # columns of a usual terminal
# Most characters in one column
_VALUE = 28
_REASON = 60
_SHORTEST = 12  # the fewest characters to which a column of settings is shortened


def summary_rows(
    results: Sequence[RunResult], *, reasons: bool
) -> tuple[list[str], list[list[str]], str]:
    """Return headers, rows and alignment of the short table: one row per cell.

    The throughput column is the first right-aligned one. `*` marks the highest throughput and `≈`
    those that are not distinguishable from it. Cells that are excluded (see `select_candidates`)
    have no mark, or `✗` if they change the ranking. With `reasons`, the status of a cell that did
    not finish is followed by the start of its error message.
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
    """What `*` means. Gives the reasons if there are excluded cells that have no `✗`."""
    cells = summarise_cells([Run(str(index), result) for index, result in enumerate(results)])
    excluded = select_candidates(cells).excluded
    reasons = dict.fromkeys(
        excluded[cell.label]
        for cell in cells
        if cell.throughput is not None and cell.label in excluded and not cell.disqualified
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


