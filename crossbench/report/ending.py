"""Why a cell's measurement ended, and what a cell that was too short would have needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossbench.load.labels import is_paced
from crossbench.load.stop import End
from crossbench.measure.catalogue import P95_LATENCY, throughput
from crossbench.measure.intervals import Interval, half_width
from crossbench.measure.statistics import percentile_support
from crossbench.report.columns import requests_ok
from crossbench.results import RunResult, Status
from crossbench.types import RequestRecord
from crossbench.wording import counted, number, percent

_COULD_GO_ON = (End.REQUESTS, End.MAX_SECONDS, End.MIN_REQUESTS, End.MAX_SECONDS_HARD)


def ending(
    result: RunResult, records: Sequence[RequestRecord], metrics: Mapping[str, float]
) -> str:
    """Say in a paragraph why the measurement ended and what it was too short for.

    Empty for a cell that did not finish and for old results, which do not have the reason.
    """
    if not result.end or not records or result.status is not Status.FINISHED:
        return ""
    end, value = End(result.end), result.config.value
    seconds = max(record.received_s for record in records)
    ok = requests_ok(metrics)
    reasons = {
        End.PRECISION: "as its throughput"
        + (f" and its {P95_LATENCY.short} were" if value("stop.p95_precision") else " was")
        + f" known precisely enough (stop.precision={value('stop.precision')})",
        End.REQUESTS: f"with requests={value('requests')}",
        End.MAX_SECONDS: f"since max_seconds={value('max_seconds')} had passed",
        End.MIN_REQUESTS: f"as soon as it had stop.min_requests={value('stop.min_requests')}, "
        f"later than max_seconds={value('max_seconds')}",
        End.MAX_SECONDS_HARD: f"since stop.max_seconds_hard={value('stop.max_seconds_hard')} had "
        f"passed, with fewer requests than stop.min_requests={value('stop.min_requests')}",
        End.SCHEDULE: "with the schedule of its load",
        End.OVER_SATURATED: "early, because the server was over-saturated",
    }
    if end not in reasons:
        return ""
    sentences = [f"The measurement ended after {number(seconds)} s, {reasons[end]}."]
    if end in _COULD_GO_ON:
        sentences += _needs(result, end, seconds, ok, metrics)
    return " ".join(sentences)


def _needs(
    result: RunResult, end: End, seconds: float, ok: int, metrics: Mapping[str, float]
) -> list[str]:
    """Return a sentence for each figure that needs a longer measurement."""

    def longer(factor: float) -> str:
        if end is End.REQUESTS:
            return f"requests={math.ceil(ok * factor)}"
        return f"max_seconds={_rounded_up(seconds * factor)}"

    sentences = []
    wanted = result.config.value("stop.precision")
    given = bool(result.steps) or is_paced(result.config)  # the load decides the throughput
    if wanted is not None and not given:
        ends = throughput(result.task.unit).interval(metrics)
        half = half_width(Interval(*ends)) if ends else None
        if half is None:
            sentences.append("It was too short for an interval of the throughput.")
        elif half > wanted:
            sentences.append(
                f"The throughput is known to ±{percent(half, 1)}; ±{percent(wanted)} would need "
                f"about {longer((half / wanted) ** 2)}."
            )
    support = percentile_support(95)
    if ok < support:
        sentences.append(
            f"A reliable {P95_LATENCY.short} needs {counted(support, 'request')}: at this speed "
            f"{longer(1.05 * support / max(1, ok))}."
        )
    return sentences


def _rounded_up(seconds: float) -> int:
    """Return the seconds rounded up to two significant digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit
