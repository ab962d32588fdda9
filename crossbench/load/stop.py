"""When a cell ends: the choices of conf/stop, and the limits of every cell.

The root keys `requests` and `max_seconds` limit every cell. `stop=precision` ends a cell earlier if
its throughput is known, and lets a slow cell go on until it has a minimum of requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from crossbench.errors import ConfigError
from crossbench.measure.intervals import half_width, mean_interval, percentile_interval
from crossbench.measure.rate_windows import RateWindows
from crossbench.types import RequestRecord

# Independent windows that an interval needs before it may end a cell. An interval that is looked at
# again and again is narrow by chance at times, and would end the cell then; with so many windows,
# its coverage holds (`python -m benchmarks.statistics`).
MIN_EFFECTIVE = 20
LOOK_GROWTH = 1.15  # each look comes after this many times the seconds of the look before


class End(StrEnum):
    """Why a measurement ended."""

    PRECISION = "precision"
    REQUESTS = "requests"
    MAX_SECONDS = "max_seconds"
    MIN_REQUESTS = "min_requests"  # after max_seconds, as soon as there were so many
    MAX_SECONDS_HARD = "max_seconds_hard"
    SCHEDULE = "schedule"  # the load had no more requests
    OVER_SATURATED = "over-saturated"
    SERVER_LOST = "server lost"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of every cell: a number of requests (None: no limit), and seconds."""

    requests: int | None
    max_seconds: float


class Watch(Protocol):
    """Decides when one measurement ends, from its records."""

    def note(self, record: RequestRecord) -> None:
        """Note a reply, in the order of the replies."""
        ...

    def end(self, sent: int, due_s: float) -> End | None:
        """Return why no request that is due at `due_s` may be sent after `sent` others.

        Returns None if it may be sent.
        """
        ...

    def share(self, done: int, elapsed_s: float) -> float:
        """Return which share of the measurement is done at most, for a progress bar."""
        ...


class StopRule(Protocol):
    """One choice of conf/stop. It is created from the values of its YAML and the `limits`."""

    @property
    def limits(self) -> Limits: ...

    @property
    def longest_s(self) -> float:
        """Return the seconds after which no more requests are sent in any case."""
        ...

    def watch(self, *, scheduled: bool) -> Watch:
        """Return the watch over one measurement; `scheduled`: its load follows a schedule."""
        ...


@dataclass
class LimitWatch:
    """Ends a measurement after a number of requests, or after a time."""

    limits: Limits

    def note(self, record: RequestRecord) -> None:
        """Do nothing: the limits do not depend on what is measured."""

    def end(self, sent: int, due_s: float) -> End | None:
        if self.limits.requests is not None and sent >= self.limits.requests:
            return End.REQUESTS
        return End.MAX_SECONDS if due_s >= self.limits.max_seconds else None

    def share(self, done: int, elapsed_s: float) -> float:
        by_time = elapsed_s / self.limits.max_seconds
        return max(by_time, done / self.limits.requests if self.limits.requests else 0.0)


@dataclass(frozen=True)
class Fixed:
    """stop=fixed: only the limits end a cell."""

    name: str
    limits: Limits

    @property
    def longest_s(self) -> float:
        return self.limits.max_seconds

    def watch(self, *, scheduled: bool) -> LimitWatch:
        return LimitWatch(self.limits)


@dataclass(frozen=True)
class Precision:
    """stop=precision: a cell ends once its throughput, and p95 if asked for, are known.

    They are known when half the width of the 95 % interval is at most `precision` (of p95:
    `p95_precision`) times the value. A cell ends at the latest after the limits' `max_seconds`, but
    one with fewer than `min_requests` requests goes on until it has them, or until
    `max_seconds_hard`.
    """

    name: str
    limits: Limits
    precision: float
    p95_precision: float | None
    min_requests: int
    min_seconds: float
    max_seconds_hard: float

    def __post_init__(self) -> None:
        for key, value in (("precision", self.precision), ("p95_precision", self.p95_precision)):
            if value is not None and not 0 < value < 1:
                raise ConfigError(
                    f"stop.{key} must be a share between 0 and 1, got {value}: give for example "
                    f"stop.{key}=0.05 for 5 %"
                )
        for key, seconds in (
            ("min_requests", self.min_requests),
            ("min_seconds", self.min_seconds),
            ("max_seconds_hard", self.max_seconds_hard),
        ):
            if not 0 <= seconds < float("inf"):
                raise ConfigError(f"stop.{key} must be 0 or more, got {seconds}")

    @property
    def longest_s(self) -> float:
        return max(self.limits.max_seconds, self.max_seconds_hard)

    def watch(self, *, scheduled: bool) -> PrecisionWatch:
        return PrecisionWatch(self, scheduled)


@dataclass
class PrecisionWatch:
    """Looks at the intervals from time to time, each time after 15 % more seconds."""

    rule: Precision
    scheduled: bool
    _windows: RateWindows = field(default_factory=RateWindows, init=False)
    _known: bool = field(default=False, init=False)
    _prolonged: bool = field(default=False, init=False)  # beyond max_seconds
    _next_look_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._next_look_s = self.rule.min_seconds

    def note(self, record: RequestRecord) -> None:
        self._windows.add(record)
        if record.received_s < self._next_look_s or self._known:
            return
        if len(self._windows.latencies_ms) >= self.rule.min_requests:
            self._known = self._is_known(record.received_s)
            self._next_look_s = record.received_s * LOOK_GROWTH

    def end(self, sent: int, due_s: float) -> End | None:
        limits, rule = self.rule.limits, self.rule
        if limits.requests is not None and sent >= limits.requests:
            return End.REQUESTS
        if self._known:
            return End.PRECISION
        if due_s < limits.max_seconds:
            return None
        if sent >= rule.min_requests:
            return End.MIN_REQUESTS if self._prolonged else End.MAX_SECONDS
        self._prolonged = True
        return End.MAX_SECONDS_HARD if due_s >= rule.longest_s else None

    def share(self, done: int, elapsed_s: float) -> float:
        limits, rule = self.rule.limits, self.rule
        by_requests = done / limits.requests if limits.requests else 0.0
        by_time = elapsed_s / limits.max_seconds
        if by_time >= 1:
            by_time = max(done / max(1, rule.min_requests), elapsed_s / rule.longest_s)
        return max(by_requests, by_time)

    def _is_known(self, now_s: float) -> bool:
        if self.scheduled and self.rule.p95_precision is None:
            return False
        if not self.scheduled:
            # What was begun in the last windows is not all answered yet
            rates = self._windows.rates(now_s - self._windows.longest_recent_s())
            half = half_width(mean_interval(rates, MIN_EFFECTIVE))
            if half is None or half > self.rule.precision:
                return False
        if self.rule.p95_precision is None:
            return True
        half = half_width(percentile_interval(self._windows.latencies_ms, 95))
        return half is not None and half <= self.rule.p95_precision
