"""The text of a comparison of two sweeps: for the terminal, and as a Markdown report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from crossbench.measure.contrasts import Difference
from crossbench.measure.ranking import Verdict
from crossbench.report.comparison import Comparison, Judged, JudgedCell
from crossbench.report.judged import difference_text, title
from crossbench.report.markdown import markdown, one_line
from crossbench.report.pairing import Distinction
from crossbench.report.tables import markdown_table, plain_table, shorten
from crossbench.wording import ABSENT, counted, number, percent

_COLUMNS, _LEAST_NAME_COLUMNS = 80, 16
_SHOWN = 4  # distinctions that the terminal lists


def terminal_text(comparison: Comparison) -> str:
    """Return the decision, then the verdicts, in at most 80 columns."""
    lines = [decision(comparison), *(f"- {text}" for text in regressions(comparison))]
    lines += [f"- {text}" for text in _cautions(comparison)]
    wrapped = [line for text in lines for line in _wrapped(text)]
    if not comparison.metrics:
        return "\n".join(wrapped)
    headers = ["cell", *(title(metric) for metric in comparison.metrics)]
    texts = [
        [_short(cell.of(metric), comparison.margin) for metric in comparison.metrics]
        for cell in comparison.cells
    ]
    widths = (2 + max(map(len, column)) for column in zip(headers[1:], *texts, strict=True))
    width = max(_LEAST_NAME_COLUMNS, _COLUMNS - sum(widths))
    rows = [
        [shorten(cell.label, width), *row]
        for cell, row in zip(comparison.cells, texts, strict=True)
    ]
    table = plain_table(headers, rows, "l" + "r" * len(comparison.metrics))
    return "\n".join([*wrapped, "", table])


def markdown_report(comparison: Comparison, command: str) -> str:
    """Return the report."""
    a, b = comparison.names
    parts = [
        f"# {one_line(f'{b} against {a}')}",
        f"**{decision(comparison)}**",
        _bullets([*regressions(comparison), *_cautions(comparison)]),
        _times(comparison),
        *(_metric_section(comparison, index) for index in range(len(comparison.metrics))),
        _rankings(comparison.cells),
        _distinctions("What must agree, but differs", comparison.contradictions),
        _distinctions("What may explain a difference", comparison.explanations),
        _unmatched(comparison),
        _method(comparison),
        f"Command: `{one_line(command)}`",
    ]
    return markdown(parts)


def decision(comparison: Comparison) -> str:
    """Return the first sentence: whether B has a regression."""
    threshold, cells = percent_text(comparison.threshold), len(comparison.cells)
    worse = sum(cell.regressed for cell in comparison.cells)
    missing = len(comparison.missing)
    if worse:
        also = f" B lacks {counted(missing, 'cell')} of A." if missing else ""
        return f"REGRESSION: B is worse than A in {worse} of {counted(cells, 'cell')}.{also}"
    if missing:
        return f"REGRESSION: B lacks {counted(missing, 'cell')} of A."
    lost = sum(len(cell.unknown) for cell in comparison.cells)
    unknown = comparison.count(Difference.UNKNOWN) + lost
    total = sum(len(cell.metrics) for cell in comparison.cells) + lost
    if not total:
        return "Nothing could be compared: no metric has a value in both A and B."
    if unknown:
        return (
            f"No regression beyond {threshold} was found, but {unknown} of "
            f"{counted(total, 'comparison')} cannot tell."
        )
    return f"No regression beyond {threshold} in {counted(cells, 'cell')}."


def regressions(comparison: Comparison) -> list[str]:
    """Return a sentence for each regression."""
    lines = []
    for cell in comparison.cells:
        lines += [f"{cell.label}: {loss}." for loss in cell.losses]
        lines += [
            f"{cell.label}: {title(item.metric)} is {_verdict(item, comparison.margin)}, "
            f"{_change(item)}."
            for item in cell.metrics
            if item.regressed
        ]
    return lines + [f"{label}: only A has it." for label in comparison.missing]


def _verdict(item: Judged, margin: float) -> str:
    """The verdict in words; `worse` for a regression inside the margin, beyond the threshold."""
    if item.regressed and item.contrast.difference is Difference.SAME:
        return "worse"
    return difference_text(item.metric, item.contrast.difference, margin)


def _cautions(comparison: Comparison) -> list[str]:
    """Return what a reader must know before believing the verdicts."""
    lines = list(comparison.incomplete)
    for cell in comparison.cells:
        if cell.unknown:
            names = ", ".join(title(metric) for metric in cell.unknown)
            lines.append(f"{cell.label}: B has no value that can be compared of {names}.")
        before, now = cell.rankings
        if before and before != now and now != Verdict.CHANGES:
            lines.append(f"{cell.label}: ranking {before} in A, {now or 'not checked'} in B.")
    if comparison.contradictions:
        names = ", ".join(dict.fromkeys(item.name for item in comparison.contradictions))
        lines.append(f"The comparison was forced although these differ: {names}.")
    if comparison.explanations:
        shown = [f"{item.name} ({item.a} / {item.b})" for item in comparison.explanations[:_SHOWN]]
        rest = len(comparison.explanations) - _SHOWN
        more = f", and {rest} more" if rest > 0 else ""
        lines.append(f"Differences may also come from: {'; '.join(shown)}{more}.")
    disturbed = sum(
        bool(run.flags) for pair in comparison.paired.pairs for run in (*pair.a, *pair.b)
    )
    if disturbed:
        lines.append(
            f"{counted(disturbed, 'run')} had flags: see the reports of the sweeps. The times of a "
            "cell that was disturbed and ran only once or twice are not judged."
        )
    unmatched = len(comparison.paired.only_b)
    unmatched += 0 if comparison.missing else len(comparison.paired.only_a)
    if unmatched:
        verbs = ("has", "is") if unmatched == 1 else ("have", "are")
        lines.append(
            f"{counted(unmatched, 'cell')} {verbs[0]} no counterpart and {verbs[1]} not compared."
        )
    if comparison.sources:
        lines.append(
            f"For cells that ran once or twice, the spread is {'; '.join(comparison.sources)}."
        )
    return lines


def percent_text(share: float) -> str:
    """Return a share as `2 %` or `2.5 %`."""
    return f"{100 * share:g} %"


def _short(item: Judged | None, margin: float) -> str:
    if item is None:
        return ABSENT
    contrast = item.contrast
    change = percent(contrast.ratio - 1, 1, signed=True)
    if contrast.difference is Difference.UNKNOWN:
        return "cannot tell"  # its number would only mislead
    if contrast.difference is Difference.SAME and not item.regressed:
        return f"same {change}"
    return f"{_verdict(item, margin)} {change}"


def _change(item: Judged) -> str:
    """`-5.3 % (-7.0 to -3.5 %)`"""
    contrast = item.contrast
    text = percent(contrast.ratio - 1, 1, signed=True)
    if contrast.low is None or contrast.high is None:
        return text
    low, high = (percent(end - 1, 1, signed=True) for end in (contrast.low, contrast.high))
    return f"{text} ({low.removesuffix(' %')} to {high})"


def _metric_section(comparison: Comparison, index: int) -> str:
    metric = comparison.metrics[index]
    rows = []
    for cell in comparison.cells:
        item = cell.of(metric)
        if item is None:
            rows.append([cell.label, ABSENT, ABSENT, ABSENT, "not compared"])
            continue
        verdict = _verdict(item, comparison.margin)
        if item.contrast.difference is Difference.UNKNOWN:
            more = item.contrast.more_blocks
            verdict += f" ({'over 100' if more is None else more} more)"
        rows.append([
            cell.label,
            f"{number(item.a, 4)} (n={item.runs[0]})",
            f"{number(item.b, 4)} (n={item.runs[1]})",
            _change(item),
            f"**{verdict}: regression**" if item.regressed else verdict,
        ])  # fmt: skip
    unit = metric.unit
    table = markdown_table(
        ["cell", f"A ({unit})", f"B ({unit})", "B against A", "verdict"], rows, "lrrrl"
    )
    name = title(metric)
    return f"## {name[0].upper()}{name[1:]}\n\n{table}"


def _rankings(cells: Sequence[JudgedCell]) -> str:
    if not any(any(cell.rankings) for cell in cells):
        return ""
    rows = [
        [cell.label, *(ranking or "not checked" for ranking in cell.rankings)] for cell in cells
    ]
    return f"## Ranking quality\n\n{markdown_table(['cell', 'A', 'B'], rows)}"


def _distinctions(heading: str, found: Sequence[Distinction]) -> str:
    if not found:
        return ""
    rows = [[item.name, item.a, item.b] for item in found]
    return f"## {heading}\n\n{markdown_table(['', 'A', 'B'], rows)}"


def _unmatched(comparison: Comparison) -> str:
    paired = comparison.paired
    lines = [f"only in A: {label}" for label in paired.only_a]
    lines += [f"only in B: {label}" for label in paired.only_b]
    return f"## Cells without a counterpart\n\n{_bullets(lines)}" if lines else ""


def _times(comparison: Comparison) -> str:
    rows = [
        [letter, name, started or ABSENT]
        for letter, name, started in zip("AB", comparison.names, comparison.started, strict=True)
    ]
    return markdown_table(["", "measured", "first run (UTC)"], rows)


def _method(comparison: Comparison) -> str:
    margin, threshold = percent_text(comparison.margin), percent_text(comparison.threshold)
    return (
        "## How this was judged\n\n"
        "The runs of A and B are independent samples, since they were measured at different times. "
        "The interval of each ratio is Welch's on the log scale; the intervals of a metric hold "
        "together over all cells at 95 % (Šidák). faster, slower, higher, lower, more, less: the "
        f"interval excludes no difference and reaches beyond the margin of ±{margin} "
        "(`report.margin`). the same: the whole interval is inside the margin. cannot tell (n "
        "more): neither; about n more runs of both would probably decide it. A regression is a "
        f"difference for the worse whose whole interval excludes 1 and whose estimate is beyond "
        f"{threshold} (`--threshold`), a cell or a run that finished only in A, a server that is "
        "over-saturated only in B, more failed requests, or a ranking that changes only in B.\n\n"
        "The repeats of a sweep show how much runs differ that come soon after each other. They do "
        "not show how much the machine itself changes between A and B. To rule that out, measure A "
        "again after B."
    )


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_long_words=False)
