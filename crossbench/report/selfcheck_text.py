"""The text of a selfcheck: its first lines for the terminal, and its Markdown report."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from crossbench.measure.catalogue import P95_LATENCY, RATES
from crossbench.measure.contrasts import Difference
from crossbench.measure.run_spread import POWER
from crossbench.measure.statistics import percentile_support
from crossbench.report.facts import MACHINE, facts
from crossbench.report.flags import MEANING
from crossbench.report.judged import difference_text, title
from crossbench.report.markdown import markdown, one_line
from crossbench.report.selfcheck import REPEATS, SWEEP_REPEATS, Findings, MetricCheck
from crossbench.report.tables import markdown_table, plain_table
from crossbench.results import Flag
from crossbench.wording import ABSENT, counted, number, percent

_HEADINGS = ("", "spread (95 % interval)", *(f"{n} repeats see" for n in REPEATS), "false")
_COLUMNS = 80  # of a terminal
_EXPECTED = 0.05  # the share of sweeps of equal cells that a test at 5 % calls different


def terminal_text(findings: Findings) -> str:
    """Return what a reader must know first, in at most 80 columns."""
    lines = [_what(findings), ""]
    if findings.metrics:
        lines += [plain_table(_HEADINGS, _rows(findings), "lrrrr"), ""]
        lines += [line for text in _legend(findings) for line in _wrapped(text)]
    else:
        lines += _wrapped(_too_few(findings))
    sentences = [*_slowdown(findings), *_flags(findings)]
    return "\n".join([*lines, *(line for text in sentences for line in _wrapped(text))])


def markdown_report(findings: Findings, command: str, stored: str) -> str:
    """Return the report; `stored` says where the spread was stored, or why not."""
    parts = ["# Selfcheck", _what(findings)]
    if findings.metrics:
        parts += [markdown_table(_HEADINGS, _rows(findings), "lrrrr")]
        parts += [_bullets(_legend(findings))]
    else:
        parts += [_too_few(findings)]
    parts += [_bullets([*_slowdown(findings), *_flags(findings)]), one_line(stored)]
    parts += [_every_run(findings), _use()]
    environment = findings.runs[0].environment if findings.runs else {}
    parts += [facts("Machine", environment, MACHINE), f"Command: `{one_line(command)}`"]
    return markdown(parts)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_long_words=False)


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _what(findings: Findings) -> str:
    label, runs = one_line(findings.label), counted(len(findings.equal_runs), "run")
    text = f"{label}: {runs} of this cell in {counted(len(findings.blocks), 'block')}"
    if findings.interrupted:
        text += f", interrupted before {counted(findings.planned, 'block')}"
    return f"{text}."


def _too_few(findings: Findings) -> str:
    failed = [run.error for run in findings.runs if run.error]
    reason = f" The first reason: {one_line(failed[0])}" if failed else ""
    return f"Too few runs finished to say anything.{reason}"


def _rows(findings: Findings) -> list[list[str]]:
    return [
        [
            title(check.metric),
            f"{_percent(check.spread.relative_sd)} ({_percent(check.interval.low, unit=False)} to "
            f"{_percent(check.interval.high)})",
            *(ABSENT if seen is None else _percent(seen) for seen in check.visible),
            f"{check.equal.different} of {check.equal.sweeps}",
        ]
        for check in findings.metrics
    ]


def _legend(findings: Findings) -> list[str]:
    check = findings.metrics[0]
    return [
        f"spread: the standard deviation from run to run ({check.spread.degrees} degrees of "
        "freedom).",
        f"see: the least difference of two cells that {percent(POWER)} of such sweeps find.",
        f"false: sweeps of two equal cells with {SWEEP_REPEATS} repeats that call them different, "
        f"of all {check.equal.sweeps:,} that these runs can be cut into. They share runs; "
        f"{percent(_EXPECTED)} are expected on average.",
        *_no_p95(findings),
    ]


def _no_p95(findings: Findings) -> list[str]:
    if any(check.metric is P95_LATENCY for check in findings.metrics):
        return []
    return [f"p95: not judged, because it needs {percentile_support(95)} requests in each run."]


def _slowdown(findings: Findings) -> list[str]:
    """Return whether the slower cell was found, and the slowdown put into the values."""
    size = percent(findings.slowdown, 1)
    lines = []
    real = [check for check in findings.metrics if check.slower is not None]
    if real:
        verdicts = "; ".join(_slower_text(check, findings.margin) for check in real)
        lines.append(f"Verdicts on the cell that needs {size} more time per pair: {verdicts}.")
    for check in findings.metrics:
        if check.metric in RATES:
            found = check.slowed.different - check.slowed.wrong
            lines.append(
                f"With values made {size} slower, {found} of {check.slowed.sweeps} such sweeps "
                f"find it, {check.slowed.wrong} with the wrong sign."
            )
    return lines


def _slower_text(check: MetricCheck, margin: float) -> str:
    found = check.slower
    assert found is not None
    verdict = difference_text(check.metric, found.difference, margin)
    if found.low is None or found.high is None:
        return f"{title(check.metric)} {verdict}"
    digits = 2 if found.difference is Difference.SAME else 1
    low, high = sorted((found.low - 1, found.high - 1))
    return (
        f"{title(check.metric)} {verdict}, {percent(found.ratio - 1, digits, signed=True)} "
        f"({percent(low, digits, signed=True)} to {percent(high, digits, signed=True)})"
    )


def _flags(findings: Findings) -> list[str]:
    """Return a sentence for each flag of the runs, and one for failed runs."""
    counts = Counter(flag for run in findings.runs for flag in run.flags)
    total = len(findings.runs)
    lines = [
        f"{counts[flag]} of {counted(total, 'run')} {'was' if counts[flag] == 1 else 'were'} "
        f"{flag}: {MEANING[flag]}."
        for flag in Flag
        if counts[flag]
    ]
    if counts[Flag.DISTURBED]:
        lines.append("On a quiet machine the spread may be smaller.")
    if failed := [run for run in findings.runs if run.error]:
        lines.append(f"{counted(len(failed), 'run')} failed: {one_line(failed[0].error or '')}")
    return lines


def _every_run(findings: Findings) -> str:
    """Return a table of all runs, from which the findings can be computed again."""
    metrics = [check.metric for check in findings.metrics]
    rows: list[list[str]] = []
    for block, found in enumerate(findings.blocks, start=1):
        for name, run in zip(("A", "A again", "slower"), (*found.equal, found.slower), strict=True):
            if run is not None:
                values = (run.metrics.get(metric.name) for metric in metrics)
                flags = ", ".join([run.status, *run.flags])
                rows.append([str(block), name, *(number(value, 4) for value in values), flags])
    headings = ["block", "cell", *(metric.heading for metric in metrics), "status"]
    table = markdown_table(headings, rows, "ll" + "r" * len(metrics) + "l")
    return f"## Every run\n\n{table}"


def _use() -> str:
    return (
        "## What reports do with it\n\n"
        "In a sweep that measured each cell once, reports assume this spread for cells of this "
        "backend. For a backend that was not checked, they assume the widest spread of all checks "
        "on this machine, but at least `report.spread`: how much one backend varies says little "
        "about another. All runs of this check came soon after each other. Results that are days "
        "apart may differ by more."
    )


def _percent(share: float, *, unit: bool = True) -> str:
    """Return a share with two significant digits: `1.2 %`, `12 %`, `0.31 %`."""
    text = number(100 * share, 2)
    return f"{text} %" if unit else text
