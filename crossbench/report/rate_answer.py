"""The answer to "what rate holds?" in sentences, for the first lines of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossbench.measure.catalogue import P95_LATENCY
from crossbench.report.cells import CellSummary
from crossbench.report.rates import P95_REQUESTS, Holds, Level, Series, rate_series
from crossbench.report.scope import OF_THIS_RUN
from crossbench.report.tables import interval_text, percentile_text
from crossbench.results import Flag, RunResult
from crossbench.wording import counted, number, percent

_USUAL_REQUESTS = 300  # with fewer, the p95 of a queue with some load seldom has an interval
_ASK = "For the highest rate with a p95 under a bound, give report.latency_bound_ms=…"


def rate_answers(
    cells: Sequence[CellSummary], axes: Sequence[str], bound_ms: float | None
) -> list[str]:
    """One sentence in Markdown for each series of rates; empty if no load has a rate."""
    return series_answers(rate_series(cells, axes), bound_ms)


def series_answers(series: Sequence[Series], bound_ms: float | None) -> list[str]:
    """One sentence in Markdown for each series; `bound_ms` bounds the p95."""
    if bound_ms is None:
        return [_without_bound(item) for item in series] + ([_ASK] if series else [])
    return [_under_bound(item, bound_ms) for item in series]


def latency_bound_ms(results: Sequence[RunResult]) -> float | None:
    """The tightest `report.latency_bound_ms` of the cells' configurations; None without any."""
    bounds = [result.config.value("report.latency_bound_ms") for result in results]
    return min((float(bound) for bound in bounds if bound is not None), default=None)


def rate_text(rate: float) -> str:
    """`1 request/s`, `0.5 requests/s`, `1.37 requests/s`."""
    return "1 request/s" if rate == 1 else f"{rate:,.4g} requests/s"


def _under_bound(series: Series, bound_ms: float) -> str:
    bound = f"{P95_LATENCY.short} under {bound_ms:,.6g} ms"
    held = [level for level in series.levels if level.holds(bound_ms) is Holds.YES]
    if not held:
        return _named(series, _none_held(series, bound, bound_ms))
    best = held[-1]
    above = [level for level in series.levels if level.rate > best.rate]
    unsure = [level for level in above if level.holds(bound_ms) is Holds.UNSURE]
    failed = next((level for level in above if level.holds(bound_ms) is Holds.NO), None)
    known = "Highest rate with a" if not unsure else "Highest rate that is sure to have a"
    inside = ", ".join(filter(None, [_p95_text(best), _interval(best) or _slower(best, bound_ms)]))
    parts = [f"**{known} {bound}: {rate_text(best.rate)}** ({inside}{_flags(best)})"]
    parts += [f"at {rate_text(level.rate)} it cannot be said: {_unsure(level)}" for level in unsure]
    if failed is not None:
        parts.append(_outcome(failed))
    if not above:
        parts.append("this is the highest rate measured, so it may hold more")
    text = "; ".join(parts) + "."
    if lower := [level for level in series.levels
                 if level.rate < best.rate and level.holds(bound_ms) is Holds.NO]:  # fmt: skip
        text += f" But a lower rate did not hold: {'; '.join(map(_outcome, lower))}."
    return _named(series, text)


def _none_held(series: Series, bound: str, bound_ms: float) -> str:
    unsure = [level for level in series.levels if level.holds(bound_ms) is Holds.UNSURE]
    failed = [level for level in series.levels if level.holds(bound_ms) is Holds.NO]
    if not unsure:
        measured = [level for level in failed if not level.failure]
        if measured:
            return f"**No measured rate has a {bound}**: {_outcome(measured[0])}: try lower rates."
        return f"**No rate with a {bound} was measured**: {'; '.join(map(_outcome, failed))}."
    below = [level for level in unsure if level.p95 and level.p95.value < bound_ms]
    shown = below[-1] if below else unsure[0]
    text = f"**Cannot say which rate has a {bound}**: at {rate_text(shown.rate)}, {_unsure(shown)}"
    if after := next((level for level in failed if level.rate > shown.rate), None):
        text += f"; {_outcome(after)}"
    return f"{text}."


def _without_bound(series: Series) -> str:
    sustained = [level for level in series.levels if level.mostly_served]
    known = "Highest rate that the server sustained:" if len(series.levels) > 1 else "Sustained:"
    head = (
        f"**{known} {rate_text(sustained[-1].rate)}**"
        if sustained
        else "**The server sustained none of the rates**"
    )
    levels = "; ".join(_outcome(level) for level in series.levels)
    return _named(series, f"{head}: {levels}.")


def _named(series: Series, text: str) -> str:
    name = f"{series.name}: " if series.name else ""
    return f"{name}{text}" + (f" This server {series.note}." if series.note else "")


def _outcome(level: Level) -> str:
    """Return the p95 of a rate as a clause, or why the server does not serve this rate."""
    at_rate = f"at {rate_text(level.rate)}"
    if level.over_saturated:
        answered = level.sustained
        sustained = "" if answered is None else f" and sustained {number(answered)} requests/s"
        return f"{at_rate} the server is over-saturated{sustained}"
    if level.failure:
        return f"{at_rate} the cell failed: {level.failure}"
    if not level.mostly_served:
        return f"{at_rate}, {_failures(level)}"
    return f"{at_rate}, {_with_interval(level)}{_flags(level)}"


def _unsure(level: Level) -> str:
    """Why it cannot be said whether a rate keeps p95 under the bound, and what is needed."""
    if level.doubt:
        return level.doubt
    if level.p95 is None:
        return "no request succeeded"
    if not level.supported:
        seconds = math.ceil(_USUAL_REQUESTS / level.rate)
        return (
            f"{_p95_text(level)} is from only {counted(level.n, 'request')}: its interval needs "
            f"{P95_REQUESTS}, and usually {_USUAL_REQUESTS} (max_seconds={seconds})"
        )
    if level.p95.above is None:
        return (
            f"{_p95_text(level)} has no interval, because its {level.n} requests say no more than "
            "a few independent ones: give a longer max_seconds"
        )
    more = "a longer run narrows it" if level.scope == OF_THIS_RUN else "more repeats narrow it"
    return f"{_p95_text(level)} has the {_interval(level)}, which contains the bound: {more}"


def _with_interval(level: Level) -> str:
    interval = _interval(level)
    return _p95_text(level) + (f" ({interval})" if interval else "")


def _p95_text(level: Level) -> str:
    """`p95 2,310 ms`, or `p95 ~2,310 ms` if the requests are too few."""
    if level.p95 is None:
        return "no p95"
    value = percentile_text(level.p95.value, 95, level.n).partition(" (n=")[0]
    return f"{P95_LATENCY.short} {value} ms"


def _interval(level: Level) -> str:
    """`95 % interval of this run 2,100 … 2,500 ms`; empty if it is unknown."""
    p95 = level.p95
    if p95 is None or p95.below is None or p95.above is None:
        return ""
    ends = interval_text(p95.value - p95.below, p95.value + p95.above)
    scope = "of this run" if level.scope == OF_THIS_RUN else "of the repeats"
    return f"95 % interval {scope} {ends} ms"


def _slower(level: Level, bound_ms: float) -> str:
    """`0 of 101 requests took longer than 4,000 ms`, which decides if p95 has no interval."""
    requests = counted(level.n, "request")
    return f"{level.slower(bound_ms)} of {requests} took longer than {bound_ms:,.6g} ms"


def _flags(level: Level) -> str:
    """The flags of a rate and its failed requests, to follow its p95; empty without any."""
    found = [flag for flag in level.flags if flag != Flag.OVER_SATURATED]
    found += [_failures(level)] if level.failed_share else []
    return f", {', '.join(found)}" if found else ""


def _failures(level: Level) -> str:
    """`40 % of the requests failed`."""
    share = percent(level.failed_share, 0 if level.failed_share >= 0.01 else 1)
    return f"{share} of the requests failed"
