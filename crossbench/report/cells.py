"""The cells of a sweep as reports see them: their runs, values, flags and ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from crossbench.load.labels import is_paced, is_ramp, load_labels
from crossbench.measure.catalogue import throughput
from crossbench.measure.metric import Metric
from crossbench.measure.ranking import Verdict
from crossbench.measure.statistics import percentile_supported
from crossbench.report.columns import requests_ok
from crossbench.results import Flag, RunResult, Status
from crossbench.types import RequestRecord

_WORST_FIRST = (
    Verdict.CHANGES, Verdict.UNSURE, Verdict.UNCHECKED, Verdict.SAME_ORDER, Verdict.KEEPS,
    Verdict.REFERENCE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a cell, finished or not: the folder's name, the result, the request records.

    `kind` is what kind of machine measured it, if unlike machines measured the sweep.
    """

    name: str
    result: RunResult
    records: Sequence[RequestRecord] = ()
    kind: str = ""

    @property
    def reason(self) -> str:
        """The first line of why it did not finish."""
        return (self.result.error or "no reason was recorded").strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the distances to both ends of its 95 % interval; both None if it is unknown.

    The interval of a cell's value is of its configuration: another run's value may differ by it.
    """

    value: float
    below: float | None = None
    above: float | None = None

    @property
    def half_width(self) -> float | None:
        """The larger of the two distances; None if unknown."""
        return None if self.below is None or self.above is None else max(self.below, self.above)


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One point of the sweep: its runs (repeats) and their mean metrics.

    `throughput` is in `unit` (pairs or texts) per second, `p95` in ms. Both are geometric means
    over the finished runs, as if all cells had run in all blocks, with an interval if the sweep has
    enough repeats. They are None if no run finished or a value is 0. Use `ranked_p95` to compare
    cells. `flat` maps the dotted keys of the configuration to their values as text.
    """

    name: str
    label: str
    runs: tuple[Run, ...]
    unit: str
    flat: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    throughput: Estimate | None = None
    p95: Estimate | None = None

    @property
    def finished(self) -> int:
        return sum(run.result.status == Status.FINISHED for run in self.runs)

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.runs if run.result.status != Status.FINISHED]

    @property
    def blocks(self) -> int:
        """The number of blocks in which a run finished; runs with the same `repeat` are one."""
        return len({block_of(run) for run in finished_runs(self.runs)})

    @property
    def repeated(self) -> bool:
        """Whether runs finished in several blocks."""
        return self.blocks > 1

    def values(self, metric: str) -> list[float]:
        """Return the metric's value in each finished run that has it."""
        return finished_values(metric, self.runs)

    @property
    def load_labels(self) -> tuple[str, ...]:
        """The keys of `flat` that describe the cell's load."""
        return load_labels(self.runs[0].result.config)

    @property
    def computes_scores(self) -> bool:
        """Whether a model computed the scores; if not, only the harness was measured."""
        return all(run.result.computes_scores for run in self.runs)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the quality check, the worst one if repeats differ. None: not checked.

        Repeats that relied on the check of another one do not count.
        """
        found = {
            run.result.quality.get("verdict")
            for run in self.runs
            if run.result.status == Status.FINISHED and "checked_in" not in run.result.quality
        }
        return next((verdict for verdict in _WORST_FIRST if verdict in found), None)

    @property
    def disqualified(self) -> bool:
        """Whether the cell changes the ranking: then it cannot be the best, however fast it is."""
        return self.verdict is Verdict.CHANGES

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the runs, each once."""
        return tuple(dict.fromkeys(flag for run in self.runs for flag in run.result.flags))

    @property
    def over_saturated(self) -> bool:
        """Whether requests were due faster than the server could answer them."""
        return Flag.OVER_SATURATED in self.flags

    @property
    def is_paced(self) -> bool:
        """Whether the load has a rate of its own, so that throughput shows the load."""
        return is_paced(self.runs[0].result.config)

    @property
    def is_ramp(self) -> bool:
        """Whether the cell has several loads, one after the other."""
        return is_ramp(self.runs[0].result.config)

    @property
    def p95_supported(self) -> bool:
        """Whether enough requests lie beyond the p95 to compare it: 100 requests in each run."""
        return _p95_supported(self.runs)

    @property
    def ranked_p95(self) -> Estimate | None:
        """The p95 if it can be compared with that of other cells.

        None if too few requests lie beyond it, and for an over-saturated cell, whose latencies grow
        for as long as it runs.
        """
        return self.p95 if self.p95_supported and not self.over_saturated else None

    @property
    def status(self) -> str:
        if not self.failures:
            return ", ".join([Status.FINISHED, *self.flags])
        if not self.finished:
            return str(self.failures[0].result.status)
        return ", ".join([f"{self.finished} of {len(self.runs)} finished", *self.flags])


def cell_throughput(cell: CellSummary) -> Metric:
    """The metric of a cell's throughput: pairs per second, or texts per second if it embeds."""
    return throughput(cell.unit)


def compared_unit(cells: Sequence[CellSummary]) -> str:
    """The unit of the cells that are compared: that of the first one that was measured.

    Pairs per second and texts per second are of different tasks.
    """
    units = [cell.unit for cell in cells if cell.throughput is not None]
    return units[0] if units else ""


Block: TypeAlias = tuple[str, int, str]


def block_of(run: Run) -> Block:
    """The block of a run: the repeat of its study, on one kind of machine."""
    config = run.result.config
    return str(config.value("study") or ""), int(config.value("repeat", 0)), run.kind


def rate_unit(cells: Sequence[CellSummary]) -> str:
    """The unit of the cells' throughput: `pairs/s`, `texts/s`, or `pairs or texts/s`."""
    units = dict.fromkeys(cell.unit for cell in cells)
    return f"{' or '.join(units) or 'pairs'}/s"


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto-optimal (throughput, latency) points, by rising latency."""
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if points[index][0] > best:
            best = points[index][0]
            front.append(index)
    return front


def finished_runs(group: Sequence[Run]) -> list[Run]:
    """The runs that finished."""
    return [run for run in group if run.result.status == Status.FINISHED]


def _p95_supported(group: Sequence[Run]) -> bool:
    counts = [requests_ok(run.result.metrics) for run in finished_runs(group)]
    return bool(counts) and percentile_supported(95, min(counts))


def finished_values(metric: str, group: Sequence[Run]) -> list[float]:
    """The metric's value in each finished run that has it."""
    found = [run.result.metrics.get(metric) for run in finished_runs(group)]
    return [value for value in found if value is not None]
