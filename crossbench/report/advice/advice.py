"""What recommendations are made of: an advice, what it rests on, and how far it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.measure.catalogue import P95_LATENCY
from crossbench.report.columns import text_with_unit
from crossbench.report.compare import CellSummary, Estimate, distinguishable, ratio
from crossbench.report.sweep_tables import estimate_text
from crossbench.settings.flatten import value_text


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`advice` is None where the data do not support one; `evidence` then says why not."""

    topic: str
    advice: str | None
    evidence: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


def rate(cell: CellSummary) -> Estimate:
    """The throughput of a cell that is known to have one."""
    assert cell.throughput is not None
    return cell.throughput


def times_text(a: CellSummary, b: CellSummary) -> str:
    """How many times b's throughput a's is, with the half-width of the ratio's interval."""
    found = ratio(rate(a), rate(b))
    return f"{found.value:.2f}×" + (f" (± {found.half_width:.2f})" if found.half_width else "")


def speed_text(a: CellSummary, b: CellSummary) -> str:
    """`times_text`, and whether the two are really apart."""
    apart = distinguishable(rate(a), rate(b))
    doubt = {True: "", False: ", not distinguishable", None: ", spread unknown"}[apart]
    return f"{times_text(a, b)} the throughput{doubt}"


def told(cell: CellSummary) -> str:
    """A cell with its throughput and p95."""
    p95 = f"{P95_LATENCY.short} {text_with_unit(P95_LATENCY, cell.metrics)}"
    return f"{cell.label} ({estimate_text(cell.throughput)} {cell.unit}/s, {p95})"


def spread_limit(cells: Sequence[CellSummary]) -> str:
    """How the intervals of these cells came about, which bounds what they can tell."""
    measured = [cell for cell in cells if cell.throughput is not None]
    repeats = [cell.finished for cell in measured]
    if any(count > 1 for count in repeats):
        least, most = min(repeats), max(repeats)
        runs = f"{least} to {most}" if least < most else f"{most}"
        return f"The spread is that of {runs} runs of each cell."
    if all(cell.throughput and cell.throughput.half_width is None for cell in measured):
        return (
            "No spread is known: one run of each cell, and too few windows in it. Longer runs "
            "(max_seconds) and repeat=1,2,3 tell it."
        )
    return (
        "One run of each cell: the intervals are from window to window, and how far a second run "
        "would differ is not known (repeat=1,2,3 tells)."
    )


def matched(
    cells: Sequence[CellSummary], axis: str, axes: Sequence[str]
) -> dict[tuple[str, ...], dict[str, CellSummary]]:
    """Cells that differ in `axis` alone: {values of the other axes: {value of `axis`: cell}}."""
    groups: dict[tuple[str, ...], dict[str, CellSummary]] = {}
    others = [name for name in axes if name != axis and not follows(name, axis, cells)]
    for cell in cells:
        key = tuple(value_text(name, cell.flat) for name in others)
        groups.setdefault(key, {})[cell.flat.get(axis, "–")] = cell
    return groups


def follows(name: str, axis: str, cells: Sequence[CellSummary]) -> bool:
    """Whether `name`'s value is settled by `axis`'s, as a backend's own precision is by it."""
    pairs = {(cell.flat.get(axis), cell.flat.get(name)) for cell in cells}
    return name == "quant" and len(pairs) == len({first for first, _ in pairs})
