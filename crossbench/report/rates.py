"""Which rate a server holds: the rates of open loops, from a sweep's cells and a ramp's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from crossbench.load.labels import RATE_KEY, is_paced
from crossbench.load.saturation import rejection_reason
from crossbench.measure.catalogue import P95_LATENCY, REQUESTS_FAILED, REQUESTS_PER_S
from crossbench.measure.intervals import share_above
from crossbench.measure.statistics import percentile_support, percentile_supported
from crossbench.measure.steps import Step, step_metrics
from crossbench.report.cells import CellSummary, Estimate, Run
from crossbench.report.columns import requests_ok
from crossbench.report.scope import OF_THIS_RUN, interval_scope
from crossbench.report.summaries import p95_estimate, run_p95
from crossbench.results import Flag, Status
from crossbench.settings.flatten import is_number, value_text
from crossbench.types import RequestRecord

MAX_FAILED = 0.05  # share of failed requests; above it a rate does not hold, whatever its p95
P95_REQUESTS = percentile_support(95)  # the fewest requests whose p95 can be compared


_BEYOND_P95 = 0.05  # share of the requests


class Holds(Enum):
    """Whether a rate keeps p95 under a bound."""

    YES = auto()
    NO = auto()
    UNSURE = auto()  # too few requests, or the interval of p95 contains the bound


@dataclass(frozen=True, slots=True)
class Level:
    """One rate that a server was given.

    `rate` is what was offered and `sustained` what was answered, both in requests/s. `p95` is in
    ms, without an interval if `n` requests are too few. `scope` says what the interval estimates.
    `failed_share` (0..1) is the share of requests that failed. `failure` says why the whole cell
    failed, and `doubt` what its repeats disagree about. `latencies_ms` are those of the successful
    requests in the order of the replies, empty if the cell was repeated.
    """

    rate: float
    sustained: float | None
    p95: Estimate | None
    n: int
    flags: tuple[str, ...] = ()
    scope: str = OF_THIS_RUN
    failed_share: float = 0.0
    failure: str = ""
    doubt: str = ""
    latencies_ms: tuple[float, ...] = ()

    @property
    def over_saturated(self) -> bool:
        return Flag.OVER_SATURATED in self.flags

    @property
    def mostly_served(self) -> bool:
        """Whether the server kept up with the rate and at most 5 % of the requests failed."""
        served = not self.over_saturated and not self.failure
        return served and self.failed_share <= MAX_FAILED

    @property
    def supported(self) -> bool:
        """Whether `n` requests are enough to compare the p95."""
        return percentile_supported(95, self.n)

    def holds(self, bound_ms: float) -> Holds:
        """Whether p95 is under the bound, with 95 % confidence.

        The whole interval of p95, or of the share of slower requests, must be on one side.
        """
        if not self.mostly_served:
            return Holds.NO
        if self.doubt or self.p95 is None or not self.supported:
            return Holds.UNSURE
        if self.p95.above is None or self.p95.below is None:
            return self._holds_by_share(bound_ms)
        if self.p95.value + self.p95.above < bound_ms:
            return Holds.YES
        return Holds.NO if self.p95.value - self.p95.below >= bound_ms else Holds.UNSURE

    def slower(self, bound_ms: float) -> int:
        """Return how many requests took longer than the bound."""
        return sum(latency_ms > bound_ms for latency_ms in self.latencies_ms)

    def _holds_by_share(self, bound_ms: float) -> Holds:
        """Decide by the share of slower requests, which may be known where p95 has no interval."""
        share = share_above(self.latencies_ms, bound_ms)
        if share is None:
            return Holds.UNSURE
        if share.high < _BEYOND_P95:
            return Holds.YES
        return Holds.NO if share.low > _BEYOND_P95 else Holds.UNSURE


@dataclass(frozen=True, slots=True)
class Series:
    """The rates of the cells that differ in nothing else, or of one ramp's steps, ascending.

    `name` is empty if there is only one series. `note` says why its cells would not be served.
    """

    name: str
    levels: tuple[Level, ...]
    note: str = ""


def rate_series(cells: Sequence[CellSummary], axes: Sequence[str]) -> list[Series]:
    """The series of the cells whose load has a rate, and of the ramps of rates."""
    groups: dict[str, list[CellSummary]] = {}
    ramps: list[Series] = []
    others = [axis for axis in axes if axis != RATE_KEY]
    for cell in cells:
        if cell.is_ramp:
            if cell.is_paced and (levels := ramp_levels(cell.runs)):
                ramps.append(Series(cell.label, tuple(levels), _note([cell])))
        elif cell.is_paced and is_number(cell.flat.get(RATE_KEY, "")) and _was_run(cell):
            # An axis that another load has does not distinguish these cells
            name = " ".join(value_text(axis, cell.flat) for axis in others if axis in cell.flat)
            groups.setdefault(name, []).append(cell)
    found = [
        Series(
            name,
            tuple(sorted((_level(cell) for cell in group), key=lambda level: level.rate)),
            _note(group),
        )
        for name, group in groups.items()
    ] + ramps
    if len(found) == 1 and sum(map(len, groups.values())) + len(ramps) == len(cells):
        return [Series("", found[0].levels, found[0].note)]  # there is nothing to tell it from
    return found


def ramp_levels(runs: Sequence[Run]) -> list[Level]:
    """The rates of a ramp that were reached, ascending, from the first run that finished."""
    run = next((run for run in runs if run.result.status == Status.FINISHED), None)
    if run is None or not run.records:
        return []
    steps = [Step(**step) for step in run.result.steps]
    metrics = step_metrics(steps, run.records, run.result.task)
    inside = [step.records(run.records) for step in steps]
    over_saturated = over_saturated_steps(run)
    levels = [
        _step_level(step, found, records, over_saturated=place in over_saturated)
        for place, (step, found, records) in enumerate(zip(steps, metrics, inside, strict=True))
        if records
    ]
    return sorted(levels, key=lambda level: level.rate)


class Cause(Enum):
    """Why a step of a ramp of rates is over-saturated."""

    GROWTH = auto()  # its backlog grew, and the ramp ended in it
    REJECTION = auto()  # the server rejected some of its requests


def over_saturated_steps(run: Run) -> dict[int, Cause]:
    """The places of the steps of a ramp of rates that were over-saturated, with the cause."""
    if not run.records or not is_paced(run.result.config):
        return {}
    inside = [Step(**step).records(run.records) for step in run.result.steps]
    found = {place: Cause.REJECTION for place, sent in enumerate(inside) if rejection_reason(sent)}
    if Flag.OVER_SATURATED in run.result.flags:
        found[max(place for place, sent in enumerate(inside) if sent)] = Cause.GROWTH
    return found


def _step_level(
    step: Step,
    metrics: Mapping[str, float],
    records: Sequence[RequestRecord],
    *,
    over_saturated: bool,
) -> Level:
    n = requests_ok(metrics)
    value = metrics.get(P95_LATENCY.name)
    p95 = None if value is None else Estimate(value)
    if value is not None and not over_saturated and percentile_supported(95, n):
        p95 = p95_estimate(value, records)
    flags = (Flag.OVER_SATURATED,) if over_saturated else ()
    rate = float(step.label.partition("=")[2])
    sustained, share = metrics.get(REQUESTS_PER_S.name), _failed_share(metrics)
    latencies_ms = _latencies_ms(records)
    return Level(rate, sustained, p95, n, flags, failed_share=share, latencies_ms=latencies_ms)


def _finished_records(cell: CellSummary) -> Sequence[RequestRecord]:
    return next(run.records for run in cell.runs if run.result.status == Status.FINISHED)


def _latencies_ms(records: Sequence[RequestRecord]) -> tuple[float, ...]:
    return tuple(record.latency_ms for record in records if record.ok)


def _was_run(cell: CellSummary) -> bool:
    """Whether the cell says something about its rate: not if this machine cannot run it at all."""
    return bool(cell.finished) or cell.failures[0].result.status == Status.FAILED


def _level(cell: CellSummary) -> Level:
    rate = float(cell.flat[RATE_KEY])
    if not cell.finished:
        return Level(rate, None, None, 0, failure=cell.failures[0].reason)
    sustained, n = cell.metrics.get(REQUESTS_PER_S.name), requests_ok(cell.metrics)
    share, scope = _failed_share(cell.metrics), interval_scope([cell])
    flagged = sum(Flag.OVER_SATURATED in run.result.flags for run in cell.runs)
    if 0 < flagged < cell.finished:  # then it is near the server's limit
        flags = tuple(flag for flag in cell.flags if flag != Flag.OVER_SATURATED)
        doubt = f"it was over-saturated in {flagged} of {cell.finished} repeats"
        return Level(rate, sustained, cell.p95, n, flags, scope, share, doubt=doubt)
    if cell.repeated:
        return Level(rate, sustained, cell.p95, n, cell.flags, scope, share)
    latencies_ms = _latencies_ms(_finished_records(cell))
    p95 = run_p95(cell)
    return Level(rate, sustained, p95, n, cell.flags, scope, share, latencies_ms=latencies_ms)


def _failed_share(metrics: Mapping[str, float]) -> float:
    failed = metrics.get(REQUESTS_FAILED.name, 0.0)
    return failed / max(1.0, failed + requests_ok(metrics))


def _note(cells: Sequence[CellSummary]) -> str:
    changes = any(cell.disqualified for cell in cells)
    return "changes the ranking, so do not use it" if changes else ""
