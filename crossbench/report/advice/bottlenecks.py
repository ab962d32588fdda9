"""Bottlenecks other than the model: padding, tokenisation, the harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossbench.measure.catalogue import PADDING_WASTE, SERVICE, stage
from crossbench.report.advice.advice import Recommendation, matched, rate, speed_text
from crossbench.report.advice.candidates import by_throughput
from crossbench.report.cells import CellSummary
from crossbench.report.verdicts import SweepVerdicts
from crossbench.settings.flatten import value_text
from crossbench.types import Pipeline
from crossbench.wording import counted, percent


@dataclass(frozen=True, slots=True)
class _Cause:
    """A possible bottleneck; it counts if its `share` of a cell (0..1) is `threshold` or more.

    `share` returns None if it is unknown.
    """

    name: str
    description: str
    threshold: float
    share: Callable[[CellSummary], float | None]


def bottlenecks(
    cells: Sequence[CellSummary], axes: Sequence[str], verdicts: SweepVerdicts
) -> Recommendation:
    topic = "Bottlenecks other than the model"
    whole = [
        cell
        for cell in cells
        if cell.throughput is not None and cell.flat.get("pipeline", Pipeline.FULL) == Pipeline.FULL
    ]
    served = [cell for cell in whole if cell.computes_scores]
    if not served:
        return Recommendation(topic, None, ("no cell that runs a model was measured.",))
    without_model = by_throughput([cell for cell in whole if not cell.computes_scores])
    causes = (
        _Cause("padding", "of the computed tokens are padding", 0.1, _padding),
        _Cause(
            "tokenisation",
            "of the time for tokenising and inference is tokenising",
            0.15,
            _tokenising,
        ),
        _harness_cause(without_model, axes)
        if without_model
        else _Cause(
            "the harness",
            "of the service time is outside tokenising, queueing and inference",
            0.15,
            _overhead,
        ),
    )
    found, small, unknown = [], [], []
    for cause in causes:
        shares = [(share, cell) for cell in served if (share := cause.share(cell)) is not None]
        if not shares:
            unknown.append(cause.name)
            continue
        worst, cell = max(shares, key=lambda item: item[0])
        text = f"up to {percent(worst)} {cause.description} ({cell.label})"
        if worst < cause.threshold:
            small.append(f"{cause.name}: {text}.")
            continue
        count = sum(share >= cause.threshold for share, _ in shares)
        line = f"{cause.name}: {text}; {percent(cause.threshold)} or more in {count} of "
        line += f"{counted(len(shares), 'cell')}."
        found.append((cause.name, line + _remedy(cause, cell, served, axes, verdicts)))
    if not found and unknown and not small:
        return Recommendation(topic, None, (f"no data on {', '.join(unknown)}.",))
    advice = ", ".join(name for name, _ in found).capitalize() + "." if found else "None found."
    limits = [f"Not measured: {', '.join(unknown)}."] if unknown else []
    if not without_model:
        limits.append(
            "The harness's share is estimated from single requests. A cell with backend=noop at "
            "the same batch and load would measure it directly."
        )
    return Recommendation(topic, advice, (*(line for _, line in found), *small), tuple(limits))


def _remedy(
    cause: _Cause,
    worst: CellSummary,
    served: Sequence[CellSummary],
    axes: Sequence[str],
    verdicts: SweepVerdicts,
) -> str:
    """The setting in this sweep that lowers the share most, with all others equal."""
    best: tuple[float, str, CellSummary] | None = None
    for axis in axes:
        for group in matched(served, axis, axes).values():
            if worst not in group.values():
                continue
            for cell in group.values():
                share = cause.share(cell)
                if share is not None and (best is None or share < best[0]):
                    best = (share, f"{axis}={value_text(axis, cell.flat).split('=')[-1]}", cell)
    if best is None or best[2] is worst or best[0] > 0.8 * (cause.share(worst) or 0.0):
        return ""
    if rate(best[2]).value < rate(worst).value:
        return ""
    return f" With {best[1]} it is {percent(best[0])}, at {speed_text(best[2], worst, verdicts)}."


def _padding(cell: CellSummary) -> float | None:
    return cell.metrics.get(PADDING_WASTE.name)


def _tokenising(cell: CellSummary) -> float | None:
    tokenize, infer = (cell.metrics.get(stage(name, "mean").name) for name in ("tokenize", "infer"))
    if tokenize is None or infer is None or tokenize + infer <= 0:
        return None
    return tokenize / (tokenize + infer)


def _overhead(cell: CellSummary) -> float | None:
    overhead = cell.metrics.get(stage("overhead", "mean").name)
    service = cell.metrics.get(SERVICE["mean"].name)
    return None if overhead is None or not service else max(0.0, overhead / service)


def _harness_cause(without_model: Sequence[CellSummary], axes: Sequence[str]) -> _Cause:
    """A cell's throughput as a share of that of a cell without a model under the same load."""
    named = {"batch"}.union(*(cell.load_labels for cell in without_model))
    load = [axis for axis in axes if axis in named]

    def share(cell: CellSummary) -> float | None:
        if cell.is_paced:  # its throughput is that of the load
            return None
        same = [
            other.throughput.value
            for other in without_model
            if other.throughput and all(other.flat.get(k) == cell.flat.get(k) for k in load)
        ]
        return cell.throughput.value / max(same) if same and cell.throughput else None

    names = " or ".join(
        dict.fromkeys(f"backend={other.flat['backend']}" for other in without_model)
    )
    return _Cause("the harness", f"of the throughput of {names} is reached", 0.3, share)
