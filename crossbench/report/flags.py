"""The flags of cells in reports: their marks, what they mean, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossbench.measure.metric import Metric
from crossbench.report.cells import CellSummary, Run
from crossbench.report.columns import metric_text
from crossbench.results import Flag, RunResult
from crossbench.wording import counted

COLUMN = "flag"  # the terminal's column of marks
GROWING = "↑"  # before a latency of an over-saturated cell
MARK = {Flag.OVER_SATURATED: "S", Flag.CLIENT_BOUND: "C", Flag.DISTURBED: "D"}
MEANING = {
    Flag.OVER_SATURATED: "requests were due faster than the server could answer them",
    Flag.CLIENT_BOUND: "the client limited the speed, not the server",
    Flag.DISTURBED: "other work on the machine took part of its time",
}
_CONSEQUENCE = {
    Flag.OVER_SATURATED: (
        "Its throughput is what the server sustained. Its latencies are those of a full queue, so "
        "they are not compared with others."
    ),
    Flag.CLIENT_BOUND: "The server may be faster than this.",
    Flag.DISTURBED: "Measure it again on a quiet machine.",
}
SHARED = (
    "`allow_shared=true`: several cells may have been measured on one machine at the same time, so "
    "they may have slowed each other down."
)
_LISTED = 5  # cells of a flag that a note lists with their reasons


def marks(cell: CellSummary) -> str:
    """The marks of the cell's flags: `S`, `SD`; empty without flags."""
    return "".join(mark for flag, mark in MARK.items() if flag in cell.flags)


def legend(cells: Sequence[CellSummary]) -> list[str]:
    """What the marks of these cells mean, one sentence for each flag that occurs."""
    found = {flag for cell in cells for flag in cell.flags}
    return [f"{mark} {flag}: {MEANING[flag]}" for flag, mark in MARK.items() if flag in found]


def legend_with_reasons(cells: Sequence[CellSummary]) -> list[str]:
    """`legend`, each flag followed by its reasons, for the terminal."""
    lines = []
    for flag, mark in MARK.items():
        runs = [(cell.label, run.result) for cell in cells for run in cell.runs]
        found = [f"  {text}." for text in _reasons(runs, flag)]
        lines += [f"{mark} {flag}: {MEANING[flag]}"] if found else []
        rest = len(found) - _LISTED
        lines += found[:_LISTED] + ([f"  and {rest} more: see the report"] if rest > 0 else [])
    return lines


def flagged(cell: CellSummary) -> str:
    """The cell's flags in words, to follow its name in a sentence: ` (disturbed)`; or empty."""
    return f" ({', '.join(cell.flags)})" if cell.flags else ""


def latency_text(metric: Metric, cell: CellSummary, *, short: bool = False) -> str:
    """A cell's metric as text; a latency of an over-saturated cell has `↑` before it.

    With `short`, an unreliable percentile has no number of requests, only its mark.
    """
    text = metric_text(metric, cell.metrics)
    if cell.over_saturated and metric.percentile is not None and metric.name in cell.metrics:
        return f"{GROWING}{metric.text(cell.metrics[metric.name])}"
    return text.partition(" (n=")[0] if short else text


def cell_notes(result: RunResult) -> list[str]:
    """The notes of a cell's report: its flags, except over-saturated, and its warnings."""
    told = [
        f"**{str(flag).capitalize()}:** {_sentence(reason)} {_advice(result, flag)}"
        for flag, reason in result.flags.items()
        if flag != Flag.OVER_SATURATED  # the first line of the report is about it
    ]
    return [*told, *_other_warnings(result)]


def over_saturated_text(result: RunResult) -> str:
    """The reason and the consequences of over-saturation, as sentences."""
    reason = result.flags[Flag.OVER_SATURATED]
    return f"{_sentence(reason)} {_CONSEQUENCE[Flag.OVER_SATURATED]}"


def sweep_notes(runs: Sequence[Run], labels: Mapping[str, str]) -> list[str]:
    """The notes of a sweep's report: each flag with its cells and their reasons.

    `labels` has the label of each run's cell by the run's name.
    """
    notes = []
    for flag in Flag:
        found = _reasons([(labels.get(run.name, run.name), run.result) for run in runs], flag)
        if found:
            first = next(run.result for run in runs if flag in run.result.flags)
            rest = len(found) - _LISTED
            more = f" {rest} more are marked in the table." if rest > 0 else ""
            cells = " ".join(f"{text}." for text in found[:_LISTED])
            advice = _advice(first, flag)
            notes.append(f"**{str(flag).capitalize()}:** {cells}{more} {advice}")
    return notes


def _reasons(runs: Sequence[tuple[str, RunResult]], flag: Flag) -> list[str]:
    """The flag's reason for each cell, without a full stop; `runs` are labels and results."""
    by_label: dict[str, list[str]] = {}
    for label, result in runs:
        if flag in result.flags:
            by_label.setdefault(label, []).append(result.flags[flag].rstrip("."))
    return [
        f"{label}: {reasons[0]}"
        + (f" (and {counted(len(reasons) - 1, 'more run')})" if len(reasons) > 1 else "")
        for label, reasons in by_label.items()
    ]


def warnings_of(result: RunResult) -> list[str]:
    """The caveat of the model and the warnings that do not repeat a flag."""
    return [str(note) for note in (result.model.get("caveat"), *_other_warnings(result)) if note]


def _advice(result: RunResult, flag: str) -> str:
    """What follows from a flag: the end of the warning that has its reason, or our own sentence."""
    reason = result.flags[flag]
    if flag != Flag.OVER_SATURATED and reason:
        for warning in result.warnings:
            if reason in warning and (rest := warning.partition(reason)[2].strip()):
                return _sentence(rest)
    return _CONSEQUENCE[Flag(flag)]


def _other_warnings(result: RunResult) -> list[str]:
    reasons = [reason for reason in result.flags.values() if reason]
    told = [note for note in result.warnings if not any(reason in note for reason in reasons)]
    return [*told, *[SHARED] * bool(result.config.value("allow_shared"))]


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")
