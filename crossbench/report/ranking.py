"""The ranking quality sections of both reports: drift, nDCG, MRR and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.measure import catalogue
from crossbench.measure.metric import Kind, Metric, View
from crossbench.measure.ranking import MIN_QUERIES, Verdict
from crossbench.report.cells import CellSummary
from crossbench.report.columns import interval_of, metric_text
from crossbench.report.markdown import Folded, Section
from crossbench.report.ranking_queries import COMMON_KEY
from crossbench.report.tables import markdown_table
from crossbench.results import Status
from crossbench.wording import ABSENT

_VERDICT_TEXTS = {
    Verdict.KEEPS: "**The ranking is kept**",
    Verdict.CHANGES: "**The ranking is changed**",
    Verdict.SAME_ORDER: "**No change of the ranking was seen**",
    Verdict.UNSURE: "**It is unclear whether the ranking is kept**",
    Verdict.REFERENCE: "**This is the reference**",
    Verdict.UNCHECKED: "Not checked",
}
_METHOD = (
    "The reference scores come from transformers' own padded forward at fp32 on the CPU, on the "
    "same pairs. The verdict depends on the cell's nDCG@10 as a share of the reference's, paired "
    "by query. `keeps`: a one-sided non-inferiority test at 2.5 % shows at least 99 %. `changes`: "
    "a one-sided test at 2.5 % shows less than 99 %. `same order`: neither is shown, but every "
    "checked query has the reference's order. `cannot say`: neither is shown, and orders have "
    "changed. The low end of the share's 95 % interval is a bound by betting, which also holds if "
    "a few queries lose much and none of them was checked; the high end comes from a bootstrap. "
    "nDCG@10 counts every passage that was judged for a query, also those that were not among its "
    "candidates."
)
_TAU = (
    " tau is Kendall's rank correlation with the reference's order, mean over the queries: 1 means "
    "the same order."
)


def cell_quality(summary: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """The section of a cell's report; empty if its ranking was not part of the run."""
    if not summary:
        return ""
    verdict, reason = Verdict(summary["verdict"]), str(summary["reason"])
    parts = ["## Ranking quality", f"{_VERDICT_TEXTS[verdict]}: {reason}.{parity_text(summary)}"]
    same = bool(summary.get("same_scores"))
    rows = [
        _row(metric, metrics)
        for metric in catalogue.shown(View.QUALITY)
        if metric.name in metrics
        and metric.kind is not Kind.COUNT  # counts stand below
        and not (same and metric in catalogue.OF_SCORE_CHANGE)
    ]
    if rows:
        parts.append(markdown_table(["", "value", "95 % interval over queries"], rows, "lrr"))
        method = "" if verdict is Verdict.REFERENCE else f" {_METHOD}"
        parts.append(_sample_text(summary, metrics) + method)
    return "\n\n".join(parts)


def sweep_quality(cells: Sequence[CellSummary]) -> list[Section]:
    """The section of a sweep's report: what each checked cell does to scores and ranking."""
    checked = [cell for cell in cells if cell.verdict not in (None, Verdict.UNCHECKED)]
    if not checked:
        return []
    shown = catalogue.shown(View.QUALITY)
    headers = ["cell", "ranking", *(metric.heading for metric in shown)]
    rows = []
    for cell in checked:
        same = same_scores(cell)
        rows.append([
            cell.label,
            f"{cell.verdict}, same scores" if same else str(cell.verdict),
            *(
                ABSENT
                if same and metric in catalogue.OF_SCORE_CHANGE
                else metric_text(metric, cell.metrics)
                for metric in shown
            ),
        ])  # fmt: skip
    kept = [column for column in range(len(headers)) if any(row[column] != ABSENT for row in rows)]
    table = markdown_table(
        [headers[column] for column in kept],
        [[row[column] for column in kept] for row in rows],
        "ll" + "r" * (len(kept) - 2),
    )
    reasons = "\n".join(
        f"- {cell.label}: {quality_reason(cell)}.{_parity_of(cell)}"
        for cell in checked
        if cell.verdict is not Verdict.REFERENCE
    )
    depths = {
        int(run.result.quality.get("passages_a_query", 0)) for cell in checked for run in cell.runs
    } - {0}
    sample = f" The first {max(depths)} passages of each query were ranked." if depths else ""
    notes = f"{sample}{_query_count_note(checked)}{_one_check_note(checked)}".strip()
    return [
        "\n\n".join(filter(None, ("## Ranking quality", table, reasons, notes))),
        Folded("How the ranking is judged", f"{_METHOD}{_TAU}"),
    ]


def parity_text(summary: Mapping[str, Any]) -> str:
    """How the scores of a server of other people relate to the reference's; empty for our own."""
    relation = summary.get("parity")
    return f" Score parity: {relation}." if relation else ""


def same_scores(cell: CellSummary) -> bool:
    """Whether the cell's scores and the reference's differ only by rounding."""
    return any(run.result.quality.get("same_scores") for run in cell.runs)


def quality_reason(cell: CellSummary) -> str:
    """The reason for a cell's verdict."""
    return next(
        str(run.result.quality.get("reason"))
        for run in cell.runs
        if run.result.status == Status.FINISHED
        and run.result.quality.get("verdict") == cell.verdict
    )


def _parity_of(cell: CellSummary) -> str:
    return next(filter(None, (parity_text(run.result.quality) for run in cell.runs)), "")


def _query_count_note(checked: Sequence[CellSummary]) -> str:
    """Which queries were compared if the cells did not score the same number of them."""
    qualities = [run.result.quality for cell in checked for run in cell.runs]
    common = {int(quality[COMMON_KEY]) for quality in qualities if COMMON_KEY in quality}
    text = ""
    if common:
        most = max(int(quality.get("queries_scored", 0)) for quality in qualities)
        text = (
            f" All cells are compared on the first {min(common)} queries, which each of them "
            f"scored in time; some scored up to {most}."
        )
    slow = [
        cell.label
        for cell in checked
        if catalogue.NDCG_AT_10.name not in cell.metrics
        and 0 < cell.metrics.get(catalogue.QUERIES.name, 0) < MIN_QUERIES
    ]
    if slow:
        text += (
            f" Fewer than {MIN_QUERIES} queries were scored in time (quality.max_seconds, "
            f"quality.longest_seconds), so nDCG@10 is not compared: {'; '.join(slow)}."
        )
    return text


def _one_check_note(checked: Sequence[CellSummary]) -> str:
    once = any("checked_in" in run.result.quality for cell in checked for run in cell.runs)
    return " Each cell was checked once, not in every repeat." if once else ""


def _sample_text(summary: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    queries, pairs = (
        int(metrics[metric.name]) for metric in (catalogue.QUERIES, catalogue.QUALITY_PAIRS)
    )
    passages = summary["passages_a_query"]
    text = f"Measured on {queries} queries and the first {passages} passages of each"
    chosen = int(summary.get("queries_chosen", queries))
    cut = f" (of {chosen} chosen: quality.max_seconds had passed)" if queries < chosen else ""
    return f"{text}, {pairs} pairs{cut}."


def _row(metric: Metric, metrics: Mapping[str, float]) -> list[str]:
    """One row: a metric without an interval has one digit more than in other tables."""
    value = metrics[metric.name]
    if metric.low in catalogue.BY_NAME:
        return [metric.title, metric.text(value), interval_of(metric, metrics) or ABSENT]
    return [metric.title, metric.text(value, more_digits=1), ""]
