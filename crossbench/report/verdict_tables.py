"""The section of a sweep's report with the verdicts: against the baseline, and the order."""

from __future__ import annotations

from crossbench.measure.contrasts import Contrast, Difference
from crossbench.report.advice.advice import few_runs
from crossbench.report.cells import CellSummary, rate_unit
from crossbench.report.judged import title
from crossbench.report.markdown import Folded, Section
from crossbench.report.metric_verdicts import MetricVerdicts, ratio_text
from crossbench.report.sweep_tables import estimate_text
from crossbench.report.tables import markdown_table
from crossbench.report.verdicts import SweepVerdicts
from crossbench.wording import ABSENT, counted, percent


def verdict_section(verdicts: SweepVerdicts) -> list[Section]:
    """The verdicts on all cells that can be compared; empty if there are fewer than two."""
    baseline = verdicts.baseline
    if baseline is None or all(len(metric.cells) < 2 for metric in verdicts.metrics):
        return []
    return [
        "## Verdicts",
        verdicts.note,
        _against_baseline(baseline, verdicts),
        _order(verdicts.throughput),
        Folded("How verdicts are made", _method(verdicts)),
    ]


def _against_baseline(baseline: CellSummary, verdicts: SweepVerdicts) -> str:
    """The table of the cells' ratios to the baseline, with a verdict on each metric."""
    shown = [metric for metric in verdicts.metrics if metric.against(baseline)]
    if not shown:
        return ""
    found = [metric.against(baseline) for metric in shown]
    names = {cell.name: cell for metric in shown for cell in metric.cells}
    headers = ["cell"]
    for metric in shown:
        headers += [f"{title(metric.metric)} (× {baseline.label})", "verdict"]
    rows = []
    for name, cell in names.items():
        if name == baseline.name:
            continue
        row = [cell.label]
        for metric, contrasts in zip(shown, found, strict=True):
            row += _texts(contrasts.get(name), metric)
        rows.append(row)
    return markdown_table(headers, rows, "l" + "rl" * len(shown))


def _order(verdicts: MetricVerdicts) -> str:
    """The cells by throughput, each with its ratio to the first and to the one before it.

    Cells that change the ranking are left out.
    """
    ordered = verdicts.best_first([cell for cell in verdicts.cells if not cell.disqualified])
    if len(ordered) < 3:  # the table of the baseline says the same about two
        return ""
    rows = []
    for place, cell in enumerate(ordered):
        first = _texts(verdicts.between(cell, ordered[0]), verdicts)
        before = (
            _texts(verdicts.between(cell, ordered[place - 1]), verdicts) if place > 1 else ["", ""]
        )
        rows.append([cell.label, estimate_text(cell.throughput), *first, *before])
    headers = [
        "by throughput",
        rate_unit(ordered),
        "× the first",
        "verdict",
        "× the one above",
        "verdict",
    ]
    return markdown_table(headers, rows, "lrrlrl")


def _texts(contrast: Contrast | None, metric: MetricVerdicts) -> list[str]:
    if contrast is None:
        return [ABSENT, ""]
    verdict = metric.text(contrast)
    is_open = contrast.difference is Difference.UNKNOWN and contrast.low is not None
    if is_open and metric.contrasts.spread_is_measured:
        more = contrast.more_blocks
        verdict += f" ({'over 100' if more is None else more} more)"
    return [ratio_text(contrast), verdict]


def _method(verdicts: SweepVerdicts) -> str:
    """How the verdicts were made."""
    margin, level = percent(verdicts.throughput.margin), 100 * verdicts.level
    looks = " (95 % over all looks after its blocks)" if verdicts.level > 0.95 else ""
    if verdicts.spread_is_measured:
        runs = f"The spread comes from {counted(verdicts.blocks, 'block')} of this sweep."
    else:
        runs = f"{few_runs(verdicts)}. The spread from run to run is {verdicts.source}."
    return (
        f"The intervals of a column hold together at {level:.4g} %{looks}: all of them contain the "
        "true ratios with this probability, if runs vary as the model assumes (Dunnett's "
        "comparisons with the baseline; Tukey's of all pairs for the order and the best cell, "
        "which are wider). **faster**, **slower**, "
        "lower, higher, less, more: the interval excludes 1 and reaches beyond the margin of "
        f"±{margin} (`report.margin`). **The same**: the whole interval is inside the margin. "
        "**cannot tell (n more)**: neither; about n more repeats would probably decide it. "
        f"{runs}"
    )
