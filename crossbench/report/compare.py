"""Summaries of a sweep's cells: repeats are averaged, and every estimate has its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crossbench.load.labels import is_paced, is_ramp, load_labels
from crossbench.measure.catalogue import P95_LATENCY, throughput
from crossbench.measure.intervals import percentile_interval, t_95
from crossbench.measure.metric import Metric
from crossbench.measure.ranking import Verdict
from crossbench.measure.rate_windows import throughput_interval
from crossbench.measure.statistics import percentile_supported
from crossbench.report.axes import flatten, label, varying
from crossbench.report.columns import requests_ok
from crossbench.results import Flag, RunResult, Status
from crossbench.types import RequestRecord

_WORST_FIRST = (
    Verdict.CHANGES, Verdict.UNSURE, Verdict.UNCHECKED, Verdict.SAME_ORDER, Verdict.KEEPS,
    Verdict.REFERENCE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a cell, finished or not: the folder's name, the result, the request records."""

    name: str
    result: RunResult
    records: Sequence[RequestRecord] = ()

    @property
    def reason(self) -> str:
        """The first line of why it did not finish."""
        return (self.result.error or "no reason was recorded").strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the distances to both ends of its 95 % interval, None if it is unknown."""

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

    `throughput` is in `unit` (pairs or texts) per second, `p95` in ms. Both are None if no run
    finished. Use `ranked_p95` to compare cells. `flat` maps the dotted keys of the configuration to
    their values as text.
    """

    name: str
    label: str
    runs: tuple[Run, ...]
    unit: str
    flat: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    throughput: Estimate | None = None
    p95: Estimate | None = None
    from_repeats: bool = False  # whether the intervals come from repeats, not from within one run

    @property
    def finished(self) -> int:
        return sum(run.result.status == Status.FINISHED for run in self.runs)

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.runs if run.result.status != Status.FINISHED]

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


def summarise_cells(runs: Sequence[Run]) -> list[CellSummary]:
    """Summarise the runs of each cell; cells are in the order in which they first ran."""
    axes = varying([run.result.config for run in runs])
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.result.cell_id or f"folder {run.name}", []).append(run)
    throughput_sd = _relative_sd(_rate_name, list(groups.values()))
    comparable = [group for group in groups.values() if _p95_comparable(group)]
    p95_sd = _relative_sd(lambda group: P95_LATENCY.name, comparable)
    return [
        CellSummary(
            name=", ".join(run.name for run in group),
            label=_label(group[0], axes),
            runs=tuple(group),
            unit=group[0].result.task.unit,
            flat=flatten(group[0].result.config),
            metrics=_mean_metrics(group),
            throughput=_throughput(group, throughput_sd),
            p95=_p95(group, p95_sd),
            from_repeats=throughput_sd is not None,
        )
        for group in groups.values()
    ]


def rate_unit(cells: Sequence[CellSummary]) -> str:
    """The unit of the cells' throughput: `pairs/s`, `texts/s`, or `pairs or texts/s`."""
    units = dict.fromkeys(cell.unit for cell in cells)
    return f"{' or '.join(units) or 'pairs'}/s"


def distinguishable(a: Estimate, b: Estimate) -> bool | None:
    """Whether the difference is larger than chance explains; None if an interval is unknown.

    It is compared with the root of the sum of squares of the two sides that face each other, as
    for independent errors.
    """
    low, high = (a, b) if a.value <= b.value else (b, a)
    if low.above is None or high.below is None:
        return None
    return high.value - low.value > math.hypot(low.above, high.below)


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """a / b with its interval: the relative errors are independent, so their squares add up."""
    value = a.value / b.value
    if a.half_width is None or b.half_width is None:
        return Estimate(value)
    half = value * math.hypot(a.half_width / a.value, b.half_width / b.value)
    return Estimate(value, half, half)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto-optimal (throughput, latency) points, by rising latency."""
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if points[index][0] > best:
            best = points[index][0]
            front.append(index)
    return front


def _rate_of(group: Sequence[Run]) -> Metric:
    """The metric of a cell's throughput: pairs per second, or texts per second if it embeds."""
    return throughput(group[0].result.task.unit)


def _rate_name(group: Sequence[Run]) -> str:
    return _rate_of(group).name


def _label(run: Run, axes: Sequence[str]) -> str:
    """A cell without a configuration is named after its folder."""
    return label(run.result.config, axes) if run.result.config else f"cell {run.name}"


def _finished(group: Sequence[Run]) -> list[Run]:
    return [run for run in group if run.result.status == Status.FINISHED]


def _p95_supported(group: Sequence[Run]) -> bool:
    counts = [requests_ok(run.result.metrics) for run in _finished(group)]
    return bool(counts) and percentile_supported(95, min(counts))


def _p95_comparable(group: Sequence[Run]) -> bool:
    """Whether the p95 of these repeats can be compared: enough requests, none over-saturated."""
    return _p95_supported(group) and not any(
        Flag.OVER_SATURATED in run.result.flags for run in group
    )


def _finished_values(metric: str, group: Sequence[Run]) -> list[float]:
    found = [run.result.metrics.get(metric) for run in _finished(group)]
    return [value for value in found if value is not None]


def _mean_metrics(group: Sequence[Run]) -> dict[str, float]:
    finished = [run.result.metrics for run in _finished(group)]
    names = dict.fromkeys(name for metrics in finished for name in metrics)
    columns = {name: _finished_values(name, group) for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def _relative_sd(
    metric_of: Callable[[Sequence[Run]], str], groups: Sequence[Sequence[Run]]
) -> tuple[float, int] | None:
    """Pooled relative standard deviation between repeats, and its degrees of freedom.

    Two repeats of one cell are too few to estimate its spread. The repeats of all cells together
    are enough (the pooled variance of a one-way analysis of variance). None without repeats.
    """
    squares, degrees = 0.0, 0
    for group in groups:
        values = _finished_values(metric_of(group), group)
        mean = sum(values) / max(1, len(values))
        if len(values) > 1 and mean > 0:
            squares += sum((value / mean - 1) ** 2 for value in values)
            degrees += len(values) - 1
    return (math.sqrt(squares / degrees), degrees) if degrees else None


def _repeated(metric: str, group: Sequence[Run], sd: tuple[float, int]) -> Estimate | None:
    values = _finished_values(metric, group)
    if not values:
        return None
    mean = sum(values) / len(values)
    half = t_95(sd[1]) * sd[0] * mean / math.sqrt(len(values))
    return Estimate(mean, min(half, mean), half)  # neither a rate nor a latency is below 0


def _throughput(group: Sequence[Run], sd: tuple[float, int] | None) -> Estimate | None:
    metric = _rate_of(group)
    if sd is not None:
        return _repeated(metric.name, group, sd)
    values = _finished_values(metric.name, group)
    if not values:
        return None
    run = _finished(group)[0]
    ends = metric.interval(run.result.metrics) or metric.interval(
        throughput_interval(run.records, metric, run.result.metrics)  # for old results
    )
    half = None if ends is None else (ends[1] - ends[0]) / 2
    return Estimate(values[0], half, half)


def _p95(group: Sequence[Run], sd: tuple[float, int] | None) -> Estimate | None:
    """The p95 with its interval, which is unknown if `CellSummary.ranked_p95` is None."""
    values = _finished_values(P95_LATENCY.name, group)
    if not values:
        return None
    if not _p95_comparable(group):
        return Estimate(sum(values) / len(values))
    if sd is not None:
        return _repeated(P95_LATENCY.name, group, sd)
    return p95_estimate(values[0], _finished(group)[0].records)


def p95_estimate(value_ms: float, records: Sequence[RequestRecord]) -> Estimate:
    """The p95 `value_ms` of these requests with its interval of this run, if they suffice."""
    found = percentile_interval([record.latency_ms for record in records if record.ok], 95)
    if found is None:
        return Estimate(value_ms)
    return Estimate(value_ms, max(0.0, value_ms - found.low), max(0.0, found.high - value_ms))
