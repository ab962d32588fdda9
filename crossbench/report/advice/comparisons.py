"""Comparisons along one axis: which value is faster, and what a lower precision gains and costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from crossbench.measure.catalogue import DEVICE_PEAK_MB, MODEL_MB, RSS_PEAK_MB
from crossbench.measure.contrasts import Difference
from crossbench.report.advice.advice import Recommendation, matched, rate, speed_text, spread_limit
from crossbench.report.advice.candidates import (
    by_throughput,
    keeps_ranking,
    kept_text,
    ranking_text,
)
from crossbench.report.axes import numeric_axis
from crossbench.report.cells import CellSummary
from crossbench.report.metric_verdicts import times
from crossbench.report.verdicts import SweepVerdicts
from crossbench.settings.flatten import value_text
from crossbench.types import Quant
from crossbench.wording import counted

_PRECISIONS = tuple(Quant)  # from the highest to the lowest
# quant has its own recommendation; the values of pipeline are measurements, not alternatives
_NOT_COMPARED = frozenset({"quant", "pipeline"})
_SMALLER = 0.9  # memory below this share of the higher precision's counts as smaller
_MEMORY = (MODEL_MB, DEVICE_PEAK_MB, RSS_PEAK_MB)


def axis_comparisons(
    cells: Sequence[CellSummary], axes: Sequence[str], verdicts: SweepVerdicts
) -> list[Recommendation]:
    """Order the values of each non-numeric axis by speed, with how certain the order is.

    Cells that change the ranking are no alternatives, so they are left out.
    """
    measured = [cell for cell in cells if cell.throughput is not None and not cell.disqualified]
    if any(cell.computes_scores for cell in measured):  # a server without a model is no alternative
        measured = [cell for cell in measured if cell.computes_scores]
    flats = [cell.flat for cell in cells if cell.flat]
    named = [axis for axis in axes if not numeric_axis([axis], flats) and axis not in _NOT_COMPARED]
    return [_order(measured, axis, axes, verdicts) for axis in named]


def _order(
    measured: Sequence[CellSummary], axis: str, axes: Sequence[str], verdicts: SweepVerdicts
) -> Recommendation:
    topic = f"Which {axis} is faster"
    of_server = by_throughput(measured)
    groups = [group for group in matched(of_server, axis, axes).values() if len(group) > 1]
    if not groups and len(of_server) < len(measured):
        why = (
            "in an open loop below capacity, throughput is that of the load. Compare the rates "
            "that the cells hold, or their p95 at the same rate."
        )
        return Recommendation(topic, None, (why,))
    if not groups:
        return Recommendation(topic, None, (f"no two measured cells differ only in {axis}.",))
    values = list(dict.fromkeys(value for group in groups for value in group))
    ranked = sorted(values, key=lambda value: -_mean_log(value, groups))
    chain, evidence = _value_name(axis, ranked[0]), []
    for faster, slower in itertools.pairwise(ranked):
        both = [group for group in groups if faster in group and slower in group]
        if not both:
            chain += f", {_value_name(axis, slower)}"
            evidence.append(
                f"{faster} and {slower} were never measured with the same other settings."
            )
            continue
        found = [verdicts.throughput.between(group[faster], group[slower]) for group in both]
        kinds = [contrast.difference for contrast in found if contrast is not None]
        chain += f" {_sign(kinds)} {_value_name(axis, slower)}"
        ratios = [
            rate(group[faster]).value / rate(group[slower]).value
            if contrast is None
            else contrast.ratio
            for group, contrast in zip(both, found, strict=True)
        ]
        low, high = times(min(ratios)), times(max(ratios))
        span = low if low == high else f"{low} to {high}"
        evidence.append(
            f"{_value_name(axis, faster)} has {span}× the throughput of "
            f"{_value_name(axis, slower)}: {_counts(kinds)} of "
            f"{counted(len(both), 'comparison')}."
        )
    limits = (
        "`>`: faster in every comparison; `≳`: faster in some, and slower in none; `=`: the same "
        "within the margin in all; `≷`: faster in some, slower in others; `?`: cannot tell.",
        spread_limit(verdicts),
    )
    return Recommendation(topic, f"{chain}.", tuple(evidence), limits)


def _sign(kinds: Sequence[Difference]) -> str:
    """The sign between two values of an axis, from the verdicts on the first against the second."""
    if not kinds:
        return "?"
    if Difference.LOWER in kinds and Difference.HIGHER in kinds:
        return "≷"
    if all(kind is Difference.HIGHER for kind in kinds):
        return ">"
    if all(kind is Difference.SAME for kind in kinds):
        return "="
    return "≳" if Difference.HIGHER in kinds else "?"


def _counts(kinds: Sequence[Difference]) -> str:
    """How often each verdict was given: `faster in 2, cannot tell in 1`."""
    words = {
        Difference.HIGHER: "faster",
        Difference.SAME: "the same",
        Difference.LOWER: "slower",
        Difference.UNKNOWN: "cannot tell",
    }
    found = [f"{word} in {kinds.count(kind)}" for kind, word in words.items() if kinds.count(kind)]
    return ", ".join(found) or "not compared in any"


def lower_precision(
    cells: Sequence[CellSummary], axes: Sequence[str], verdicts: SweepVerdicts
) -> Recommendation:
    topic = "Gain and cost of lower precision"
    if "quant" not in axes:
        only = {cell.flat["quant"] for cell in cells if "quant" in cell.flat}
        known = "" if all("quant" in cell.flat for cell in cells) else " whose precision is known"
        reason = f"every cell{known} runs at {', '.join(only)}." if only else "it is not known."
        return Recommendation(topic, None, (reason,))
    measured = [cell for cell in cells if cell.throughput is not None]
    groups = matched(measured, "quant", [axis for axis in axes if axis != "quant"])
    pairs = [pair for group in groups.values() for pair in _steps(group)]
    missing = [f"{cell.label}: {cell.status}" for cell in cells if cell.throughput is None]
    absent = (f"Not measured: {'; '.join(missing)}.",) if missing else ()
    if not pairs:
        reason = "no two measured cells differ only in precision."
        return Recommendation(topic, None, (reason, *absent))
    labels_by_benefit: dict[str, list[str]] = {}
    for high, low in pairs:
        if keeps_ranking(low) and (why := _benefit(high, low, verdicts)):
            labels_by_benefit.setdefault(why, []).append(low.label)
    lost = [low for _, low in pairs if keeps_ranking(low) is False]
    unsure = [low for _, low in pairs if keeps_ranking(low) is None]
    advice = " ".join(
        f"{why}: {', '.join(dict.fromkeys(names))}." for why, names in labels_by_benefit.items()
    )
    advice = advice or "No measured lower precision is known to help."
    if lost:
        advice += f" Do not use, because the ranking changes: {', '.join(c.label for c in lost)}."
    evidence = [_step_text(high, low, verdicts) for high, low in pairs]
    limits = [spread_limit(verdicts), *absent]
    if unsure:
        labels = ", ".join(cell.label for cell in unsure)
        limits.append(f"It is unknown whether these keep the ranking: {labels}.")
    return Recommendation(topic, advice, tuple(evidence), tuple(limits))


def _steps(group: Mapping[str, CellSummary]) -> list[tuple[CellSummary, CellSummary]]:
    """Pairs of the highest precision in a group and each lower one."""
    ordered = sorted(
        (item for item in group.items() if item[0] in set(Quant)),
        key=lambda item: _PRECISIONS.index(Quant(item[0])),
    )
    return [(ordered[0][1], low) for _, low in ordered[1:]]


def _benefit(high: CellSummary, low: CellSummary, verdicts: SweepVerdicts) -> str | None:
    """The known benefit of a lower precision whose ranking was verified; None if there is none."""
    memory = _memory(high, low)
    smaller = memory is not None and memory[1] < _SMALLER
    if memory and memory[0] == RSS_PEAK_MB.title:  # it varies from run to run
        smaller = smaller and verdicts.memory.better(low, high)
    if low.is_paced:  # its throughput is that of the load
        return f"Less {memory[0]}" if memory and smaller else None
    if verdicts.throughput.better(low, high):
        return f"Faster, and it {kept_text(low)}"
    if memory is None or not smaller:
        return None
    found = verdicts.throughput.between(low, high)
    unknown = found is None or found.difference is Difference.UNKNOWN
    return (
        f"Less {memory[0]}, and it cannot be told whether it is faster"
        if unknown
        else (f"Less {memory[0]}, but not faster")
    )


def _step_text(high: CellSummary, low: CellSummary, verdicts: SweepVerdicts) -> str:
    memory = _memory(high, low)
    memory_text = f"; {memory[1]:.2f}× the {memory[0]}" if memory else "; memory unknown"
    return (
        f"{low.label} against {high.flat['quant']}: {speed_text(low, high, verdicts)}"
        f"{memory_text}; {kept_text(low)} ({ranking_text(low)})."
    )


def _memory(high: CellSummary, low: CellSummary) -> tuple[str, float] | None:
    """Title of the first memory metric that both cells have, and its ratio of low to high."""
    for metric in _MEMORY:
        name = metric.name
        if name in low.metrics and high.metrics.get(name):
            return metric.title, low.metrics[name] / high.metrics[name]
    return None


def _mean_log(value: str, groups: Sequence[Mapping[str, CellSummary]]) -> float:
    """Mean logarithm of a value's throughput relative to its groups' geometric means."""
    logs = []
    for group in groups:
        if value in group:
            centre = sum(math.log(rate(cell).value) for cell in group.values()) / len(group)
            logs.append(math.log(rate(group[value]).value) - centre)
    return sum(logs) / len(logs)


def _value_name(axis: str, value: str) -> str:
    return value_text(axis, {axis: value})
