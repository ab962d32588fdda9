"""Why a cell's measurement ended, and what a cell that was too short would have needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossbench.load.labels import is_paced
from crossbench.load.stop import End
from crossbench.measure.catalogue import P95_LATENCY, throughput
from crossbench.measure.intervals import Interval, half_width, percentile_interval
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
    reasons = {
        End.PRECISION: f"as {_known(result)}",
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
        sentences += _needs(result, records, seconds, metrics)
    return " ".join(sentences)


def _known(result: RunResult) -> str:
    """Say which figures were known precisely enough, and the keys that ask for it."""
    wanted = {"throughput": "stop.precision", P95_LATENCY.short: "stop.p95_precision"}
    if _is_given(result):
        del wanted["throughput"]
    values = {key: result.config.value(key) for key in wanted.values()}
    figures = [name for name, key in wanted.items() if values[key] is not None]
    keys = ", ".join(f"{key}={value}" for key, value in values.items() if value is not None)
    verb = "was" if len(figures) == 1 else "were"
    return f"its {' and its '.join(figures)} {verb} known precisely enough ({keys})"


def _is_given(result: RunResult) -> bool:
    """Whether the load decides the throughput, not the server."""
    return bool(result.steps) or is_paced(result.config)


def _needs(
    result: RunResult,
    records: Sequence[RequestRecord],
    seconds: float,
    metrics: Mapping[str, float],
) -> list[str]:
    """Return a sentence for each figure that needs a longer measurement."""
    ok, value = requests_ok(metrics), result.config.value

    def longer(factor: float) -> str:
        if End(result.end) is End.REQUESTS:
            return f"requests={math.ceil(ok * factor)}"
        return f"max_seconds={_rounded_up(seconds * factor)}"

    def precise(name: str, half: float | None, wanted: float | None) -> str:
        if wanted is None or (half is not None and half <= wanted):
            return ""
        if half is None:
            return f"It was too short for an interval of the {name}."
        needed = longer((half / wanted) ** 2)
        known = f"The {name} is known to ±{percent(half, 1)}"
        return f"{known}; ±{percent(wanted)} would need about {needed}."

    ends = throughput(result.task.unit).interval(metrics)
    half = half_width(Interval(*ends)) if ends else None
    sentences = [] if _is_given(result) else [precise("throughput", half, value("stop.precision"))]
    support = percentile_support(95)
    if ok < support:
        sentences.append(
            f"A reliable {P95_LATENCY.short} needs {counted(support, 'request')}: at this speed "
            f"{longer(1.05 * support / max(1, ok))}."
        )
    elif not result.steps:
        latencies_ms = [record.latency_ms for record in records if record.ok]
        half = half_width(percentile_interval(latencies_ms, 95))
        sentences.append(precise(P95_LATENCY.short, half, value("stop.p95_precision")))
    return [sentence for sentence in sentences if sentence]


def _rounded_up(seconds: float) -> int:
    """Return the seconds rounded up to two significant digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / unit) * unit
