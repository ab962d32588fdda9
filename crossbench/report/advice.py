"""What recommendations are made of: an advice, what it rests on, and how far it carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossbench.measure.quality import Verdict
from crossbench.report.axes import value_text
from crossbench.report.compare import Cell, Estimate, distinguishable, ratio
from crossbench.report.sweep_tables import estimate_text
from crossbench.report.tables import percentile_text
from crossbench.types import Pipeline, Quant
from crossbench.wording import number, percent


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`advice` is None where the data do not support one; `evidence` then says why not."""

    topic: str
    advice: str | None
    evidence: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The cells that may be recommended, and each that may not with the reason."""

    cells: tuple[Cell, ...]
    left_out: Mapping[str, str]
    unverified: bool  # no cell is known to keep the ranking, so none was left out for that


def choose(joined: Sequence[Cell]) -> Choice:
    """Leave out what nobody would serve: no numbers, no model, a stage alone, another ranking.

    A lower precision whose ranking was not verified is left out too where another cell is safe.
    """
    left_out: dict[str, str] = {}
    safe: list[Cell] = []
    unverified: list[Cell] = []
    for cell in joined:
        if cell.throughput is None or cell.p95 is None:
            left_out[cell.label] = f"no numbers ({cell.status})"
        elif cell.flat.get("backend") == "noop":
            left_out[cell.label] = "runs no model"
        elif cell.flat.get("pipeline", Pipeline.FULL) != Pipeline.FULL:
            left_out[cell.label] = f"measures {cell.flat['pipeline']} alone"
        elif (kept := keeps_ranking(cell)) is False:
            left_out[cell.label] = f"changes the ranking ({ranking_text(cell)})"
        else:
            (safe if kept or is_full(cell) else unverified).append(cell)
    if safe:
        left_out |= {cell.label: "its ranking was not verified" for cell in unverified}
    order = {id(cell): index for index, cell in enumerate(joined)}
    chosen = sorted(safe or unverified, key=lambda cell: order[id(cell)])
    return Choice(tuple(chosen), left_out, unverified=not safe and bool(unverified))


def is_full(cell: Cell) -> bool:
    return cell.flat.get("quant", Quant.FP32) == Quant.FP32


def keeps_ranking(cell: Cell) -> bool | None:
    """The quality check's verdict on the cell; None: it cannot say, or nothing was checked."""
    if cell.verdict in (Verdict.KEEPS, Verdict.REFERENCE):
        return True
    return False if cell.disqualified else None


def ranking_text(cell: Cell) -> str:
    """What is known of the cell's ranking."""
    metrics, parts = cell.metrics, []
    change = metrics.get("quality/ndcg_at_10_change")
    if change is not None:
        text = f"nDCG@10 {percent(change, 1, signed=True)}"
        ends = [metrics.get(f"quality/ndcg_at_10_change_{end}") for end in ("low", "high")]
        if None not in ends:
            low, high = (percent(end, 1, signed=True) for end in ends if end is not None)
            text += f", 95 % interval {low} to {high}"
        parts.append(text)
    if (tau := metrics.get("quality/kendall_tau")) is not None:
        parts.append(f"Kendall's tau {tau:.3f}")
    if (drift := metrics.get("quality/max_abs_diff")) is not None:
        parts.append(f"scores differ by at most {number(drift, 2)}")
    return "; ".join(parts) or "no quality metrics"


def rate(cell: Cell) -> Estimate:
    """The throughput of a cell that is known to have one."""
    assert cell.throughput is not None
    return cell.throughput


def times_text(a: Cell, b: Cell) -> str:
    """How many times b's throughput a's is, with the half-width of the ratio's interval."""
    found = ratio(rate(a), rate(b))
    return f"{found.value:.2f}×" + (f" (± {found.half:.2f})" if found.half else "")


def speed_text(a: Cell, b: Cell) -> str:
    """`times_text`, and whether the two are really apart."""
    apart = distinguishable(rate(a), rate(b))
    doubt = {True: "", False: ", not distinguishable", None: ", spread unknown"}[apart]
    return f"{times_text(a, b)} the throughput{doubt}"


def told(cell: Cell) -> str:
    """A cell with its throughput and p95."""
    n = int(cell.metrics.get("requests/ok", 0))
    p95 = percentile_text(cell.p95.value if cell.p95 else None, 95, n, "ms")
    return f"{cell.label} ({estimate_text(cell.throughput)} {cell.unit}/s, p95 {p95})"


def spread_limit(joined: Sequence[Cell]) -> str:
    """How the intervals of these cells came about, which bounds what they can tell."""
    measured = [cell for cell in joined if cell.throughput is not None]
    repeats = [cell.finished for cell in measured]
    if any(count > 1 for count in repeats):
        return f"The spread is that of {min(repeats)} to {max(repeats)} runs of each cell."
    if all(cell.throughput and cell.throughput.half is None for cell in measured):
        return (
            "No spread is known: one run of each cell, and too few windows in it. Longer runs "
            "(max_seconds) and repeat=1,2,3 tell it."
        )
    return (
        "One run of each cell: the intervals are from window to window, and how far a second run "
        "would differ is not known (repeat=1,2,3 tells)."
    )


def matched(
    joined: Sequence[Cell], axis: str, axes: Sequence[str]
) -> dict[tuple[str, ...], dict[str, Cell]]:
    """Cells that differ in `axis` alone: {values of the other axes: {value of `axis`: cell}}."""
    groups: dict[tuple[str, ...], dict[str, Cell]] = {}
    others = [name for name in axes if name != axis and not follows(name, axis, joined)]
    for cell in joined:
        key = tuple(value_text(name, cell.flat) for name in others)
        groups.setdefault(key, {})[cell.flat.get(axis, "–")] = cell
    return groups


def follows(name: str, axis: str, joined: Sequence[Cell]) -> bool:
    """Whether `name`'s value is settled by `axis`'s, as a backend's own precision is by it."""
    pairs = {(cell.flat.get(axis), cell.flat.get(name)) for cell in joined}
    return name == "quant" and len(pairs) == len({first for first, _ in pairs})
