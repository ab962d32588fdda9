"""The short table of cells for the terminal, for notebooks and for the suite's report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.measure.metric import View
from crossbench.measure.ranking import Verdict
from crossbench.report.advice.candidates import select_candidates
from crossbench.report.answer import answer
from crossbench.report.axes import axis_headings, label, varying
from crossbench.report.best import BEST_MARK, MAYBE_MARK, fastest_cells, mark
from crossbench.report.cells import CellSummary, Run, rate_unit
from crossbench.report.columns import columns, text_with_unit
from crossbench.report.flags import COLUMN, GROWING, latency_text, legend_with_reasons, marks
from crossbench.report.machines import machines_note
from crossbench.report.rate_answer import latency_bound_ms, rate_answers
from crossbench.report.scope import interval_scope
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep_tables import axis_values, estimate_text, verdict_text
from crossbench.report.tables import plain_table, shorten, text_width
from crossbench.report.verdicts import sweep_verdicts
from crossbench.results import RunResult, Status
from crossbench.wording import ABSENT

WIDTH = 80  # columns of a usual terminal
# Most characters in one column
_VALUE = 28
_NAME = 60
_COMPACT = "latencies in ms; RSS is its peak"
_SHORTEST = 16  # the fewest characters to which a column of settings is shortened


def summary_rows(
    results: Sequence[RunResult], *, reasons: bool
) -> tuple[list[str], list[list[str]], str]:
    """Return headers, rows and alignment of the short table: one row per cell.

    The throughput column is the first right-aligned one. `★` marks the fastest cell and `☆` each
    one that may be it. Cells that are excluded (see `select_candidates`) and open loops have no
    mark, or `✗` if they change the ranking. If a cell has a flag, a column
    has the flags' marks (`report.flags.MARK`). With `reasons`, the status of a cell that did not
    finish is followed by its error message.
    """
    cells, axes = _cells(results), varying([result.config for result in results])
    best = fastest_cells(select_candidates(cells), sweep_verdicts(cells))
    metrics = columns(View.TERMINAL, [cell.metrics for cell in cells])
    any_flag = any(marks(cell) for cell in cells)
    headers = [*(axis_headings(axes) or ["name"]), *[COLUMN] * any_flag]
    align = "l" * len(headers) + PAIRS_PER_S.align + "".join(metric.align for metric in metrics)
    headers += [rate_unit(cells), *(metric.heading for metric in metrics)]
    rows = []
    for cell in cells:
        excluded = cell.disqualified and cell.throughput is not None
        best_mark = "✗ " if excluded else mark(cell, best)
        width = _VALUE if axes else _NAME
        rows.append([
            *(shorten(text, width) for text in axis_values(cell, axes)),
            *[marks(cell)] * any_flag,
            best_mark + estimate_text(cell.throughput),
            *(latency_text(metric, cell, short=True) for metric in metrics),
        ])  # fmt: skip
    compared = [cell for cell in cells if cell.verdict is not Verdict.REFERENCE]
    if any(verdict_text(cell) != ABSENT for cell in compared):
        headers.append("ranking")
        for row, cell in zip(rows, cells, strict=True):
            row.append(verdict_text(cell))
    if any(cell.failures for cell in cells):
        headers.append("status")
        for row, cell in zip(rows, cells, strict=True):
            why = f": {cell.failures[0].reason}" if cell.failures and reasons else ""
            row.append((cell.status if cell.failures else Status.FINISHED) + why)
    return headers, rows, align.ljust(len(headers), "l")


def terminal_table(results: Sequence[RunResult]) -> str:
    """The short table as text, with a legend of the marks that it uses.

    It fits a terminal of 80 columns if its settings can be shortened enough.
    """
    headers, rows, align = summary_rows(results, reasons=False)
    rate_column = align.index("r")
    shown, used = _fitted(headers, rows, rate_column), []
    if _width(headers, shown) > WIDTH:
        headers = [heading.removesuffix(" (ms)").replace(" peak", "") for heading in headers]
        shown, used = _fitted(headers, rows, rate_column), [_COMPACT]
    table = plain_table(headers, shown, align)
    if headers[0] == "name" and len(rows) == 1 and "…" in table:  # the name has a line of its own
        table = "\n".join([rows[0][0], plain_table(headers[1:], [rows[0][1:]], align[1:])])
    lines = [table]
    throughput = " ".join(row[rate_column] for row in rows)
    cells = _cells(results)
    scope = interval_scope(cells)
    texts = {
        BEST_MARK: _best_text(results, "★ fastest: every other cell is shown to be slower"),
        MAYBE_MARK: _best_text(results, "☆ may be the fastest"),
        "✗": "✗ changes the ranking, so it is excluded",
        "±": f"± 95 % interval {scope}",
        " to ": f"a to b: 95 % interval {scope}",
    }
    used += [text for sign, text in texts.items() if sign in throughput]
    numbers = [cell for row in rows for cell in row[rate_column:]]
    if any("~" in cell for cell in numbers):
        used.append("~ unreliable: fewer than five requests lie beyond this percentile")
    if any(GROWING in cell for cell in numbers):
        used.append(f"{GROWING} grew for as long as the run lasted")
    lines += ["", *_packed(used)] if used else []
    for text in legend_with_reasons(cells):
        indent = "    " if text.startswith(" ") else "  "
        lines += wrapped(text, indent)
    if why := _reasons(results):
        lines += ["", *why]
    return "\n".join(lines)


def cell_line(result: RunResult, name: str) -> str:
    """One line for a cell that has ended: `NAME: 1,234 pairs/s, p95 41.2 ms, ranking keeps`."""
    (cell,) = _cells([result])
    if cell.throughput is None:
        return f"{name}: {result.status}" + (f": {result.error}" if result.error else "")
    parts = [f"{estimate_text(cell.throughput)} {cell.unit}/s"]
    if cell.p95 is not None:
        parts.append(f"p95 {text_with_unit(P95_LATENCY, cell.metrics)}")
    if (verdict := verdict_text(cell)) != ABSENT:
        parts.append(f"ranking {verdict}")
    parts += [str(flag) for flag in result.flags]
    if result.error:
        parts.append(f"{result.status}: {result.error}")
    return f"{name}: {', '.join(parts)}"


def terminal_answer(runs: Sequence[Run]) -> str:
    """The first lines of the report for the terminal; of a single cell only the rates that hold."""
    cells, axes = summarise_cells(runs), varying([run.result.config for run in runs])
    bound_ms = latency_bound_ms([run.result for run in runs])
    if len(cells) > 1:
        lines = answer(cells, axes, bound_ms, sweep_verdicts(cells)).splitlines()
    else:
        lines = rate_answers(cells, axes, bound_ms)
    lines += filter(None, [machines_note(runs)])
    texts = [line.removeprefix("- ").replace("**", "").replace("`", "") for line in lines]
    return "\n".join(part for text in texts for part in wrapped(text, "  "))


def wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _packed(texts: Sequence[str]) -> list[str]:
    """The texts on as few lines as possible, with no line break inside a text."""
    lines: list[str] = []
    for text in texts:
        longer = f"{lines[-1]}; {text}" if lines else text
        if lines and text_width(longer) < WIDTH:
            lines[-1] = longer
        else:
            lines += wrapped(text)
    return lines


def _cells(results: Sequence[RunResult]) -> list[CellSummary]:
    return summarise_cells([Run(str(index), result) for index, result in enumerate(results)])


def _fitted(
    headers: Sequence[str], rows: Sequence[Sequence[str]], settings: int
) -> list[Sequence[str]]:
    """The rows with the first `settings` columns shortened, the widest first, to fit `WIDTH`.

    The reasons of failed cells, in the last column, may be longer.
    """
    shown = [list(row) for row in rows]
    while (excess := _width(headers, shown) - WIDTH) > 0:
        widths = _widths(headers, shown)
        widest = max(range(settings), key=lambda column: widths[column])
        least = max(_SHORTEST, text_width(headers[widest]))
        if widths[widest] <= least:
            break
        for row in shown:
            row[widest] = shorten(row[widest], max(least, widths[widest] - excess))
    return list(shown)


def _width(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The width of the table; the last column without the reasons of failed cells."""
    widths = _widths(headers, rows)
    if headers[-1] == "status":
        widths[-1] = min(widths[-1], len(Status.FINISHED))
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(text_width, column)) for column in zip(headers, *rows, strict=True)]


def _best_text(results: Sequence[RunResult], meaning: str) -> str:
    """What a mark means. Gives the reasons if there are excluded cells that have no `✗`."""
    cells = _cells(results)
    excluded = select_candidates(cells).excluded
    reasons = dict.fromkeys(
        excluded[cell.label]
        for cell in cells
        if cell.throughput is not None and cell.label in excluded and not cell.disqualified
    )
    if not reasons:
        return meaning
    return f"{meaning} (excluded: {', '.join(reasons)})"


def _reasons(results: Sequence[RunResult]) -> list[str]:
    """The error messages, each once, in full and with its cells."""
    axes = varying([result.config for result in results])
    cells_by_reason: dict[str, dict[str, None]] = {}
    for result in results:
        reason = " ".join((result.error or "").split())
        if result.status is not Status.FINISHED:
            names = cells_by_reason.setdefault(f"{result.status}: {reason or 'no reason'}", {})
            names[label(result.config, axes)] = None  # once for all of the cell's repeats
    return [
        line
        for reason, names in cells_by_reason.items()
        for line in wrapped(f"{', '.join(names)}: {reason}", "  ")
    ]
