"""Recommended settings: best throughput under the latency bound, knee, useful concurrency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from crossbench.load.labels import CONCURRENCY_KEY
from crossbench.measure.catalogue import REQUESTS_FAILED
from crossbench.measure.contrasts import Difference
from crossbench.report.advice.advice import (
    Recommendation,
    description,
    flag_reasons,
    matched,
    p95_times_text,
    spread_limit,
    times_text,
    verdict_suffix,
)
from crossbench.report.advice.candidates import Candidates
from crossbench.report.advice.choice import choose, p95_of, rate_of
from crossbench.report.axes import numeric_axis
from crossbench.report.cells import CellSummary, pareto
from crossbench.report.columns import requests_ok
from crossbench.report.knee import LEAST_HEIGHT, find_knee
from crossbench.report.rate_answer import rate_answers
from crossbench.report.verdicts import SweepVerdicts
from crossbench.wording import counted, join_first, number, percent

MIN_GAIN = 1.05  # smallest ratio of throughputs for which more concurrency is worthwhile
_FEW = "A p95 is compared only from 100 requests"
_LISTED = 5  # series that are listed; further ones are only counted


def best_settings(
    candidates: Candidates, bound_ms: float | None, verdicts: SweepVerdicts
) -> Recommendation:
    topic = "Best throughput" + (f" with p95 up to {number(bound_ms)} ms" if bound_ms else "")
    excluded = [f"Excluded: {join_first([f'{k} ({v})' for k, v in candidates.excluded.items()])}."]
    excluded = excluded if candidates.excluded else []
    if len(candidates.cells) < 2:
        found = f"only {description(candidates.cells[0])}" if candidates.cells else "no cell"
        return Recommendation(topic, None, (f"{found} qualifies.", *excluded))
    chosen = choose(candidates.cells, bound_ms, verdicts)
    best, tied, within, over = chosen.best, chosen.tied, chosen.within, chosen.over
    if chosen.unknown:
        names = join_first([cell.label for cell in chosen.unknown])
        excluded = [
            f"It cannot be said whether these are within the bound: {names}. {_FEW}.",
            *excluded,
        ]
    if best is None:
        if chosen.nearest is None:
            return Recommendation(topic, None, tuple(excluded))
        return Recommendation(
            topic,
            None,
            (
                f"no cell is within the bound; the closest is {description(chosen.nearest)}.",
                *excluded,
            ),
        )
    evidence = _comparisons(best, tied, within, verdicts)
    corrected = verdicts.throughput.corrected(best, within)
    if tied and corrected is not None and number(corrected) != number(rate_of(best)):
        evidence.append(
            f"The highest of several values is probably lucky: corrected for that, {best.label} "
            f"has {number(corrected)} {best.unit}/s."
        )
    if over:
        fastest = max(over, key=rate_of)
        evidence.append(
            f"Of the cells over the bound ({len(over)}), the fastest is {description(fastest)}."
        )
    limits = [spread_limit(verdicts), *_range_limits(best, candidates.cells), *excluded]
    limits += [f"It was {flag}: {reason}" for flag, reason in flag_reasons(best).items()]
    if not best.p95_supported:
        n = requests_ok(best.metrics)
        limits.append(f"Its p95 is unreliable: it is based on {counted(n, 'request')}.")
    above = best.p95.above if best.p95 else None
    if bound_ms and above is not None and p95_of(best) + above > bound_ms:
        limits.append(f"The 95 % interval of its p95 reaches {number(p95_of(best) + above)} ms.")
    if failed := best.metrics.get(REQUESTS_FAILED.name):
        limits.append(f"{number(failed)} of its requests failed.")
    if candidates.unverified:
        limits.append("It was not verified that the cell keeps the ranking.")
    if bound_ms is None:
        limits.append("No latency bound was given (report.latency_bound_ms=…).")
    advice = f"{description(best)}."
    if tied:
        others = join_first([description(cell) for cell in tied], separator=" or ")
        why = "which one is best cannot be told"
        if not verdicts.throughput.undecided([best, *tied]):
            why = "they are the same within the margin"
        advice = f"{description(best)} or {others}: {why}."
    return Recommendation(topic, advice, tuple(evidence), tuple(limits))


def knee(candidates: Candidates, verdicts: SweepVerdicts) -> Recommendation:
    topic = "Knee of throughput against p95"
    cells = [cell for cell in candidates.cells if cell.ranked_p95 is not None]
    front = [cells[i] for i in pareto([(rate_of(cell), p95_of(cell)) for cell in cells])]
    few = len(candidates.cells) - len(cells)
    if len(front) < 3:
        return Recommendation(
            topic, None,
            (f"the Pareto frontier has {counted(len(front), 'cell')}, but a knee needs three.",
             *([f"{_FEW}, which {counted(few, 'cell')} did not have."] if few else ())),
        )  # fmt: skip
    points = [(p95_of(cell), rate_of(cell)) for cell in front]
    found = find_knee(points)
    if found is None:
        return Recommendation(
            topic, None,
            (f"throughput rises in proportion to p95 along {len(front)} cells from "
             f"{description(front[0])} to {description(front[-1])}: none lies "
             f"{percent(LEAST_HEIGHT)} of the range above the straight line between the two.",),
        )  # fmt: skip
    cell, last, first = front[found.index], front[-1], front[0]
    evidence = [
        f"From {first.label} to the knee, throughput rises to "
        f"{times_text(cell, first, verdicts)} and p95 to "
        f"{p95_times_text(cell, first)}. From the knee to {last.label}, throughput rises to "
        f"{times_text(last, cell, verdicts)} and p95 to {p95_times_text(last, cell)}."
    ]
    limits = [
        f"Kneedle: of the {len(front)} cells on the frontier, it lies highest above the chord."
    ]
    if verdicts.throughput.undecided(front):
        limits.append(
            "Some differences along the frontier cannot be told, so a neighbouring cell may be the "
            "knee instead."
        )
    return Recommendation(topic, f"{description(cell)}.", tuple(evidence), tuple(limits))


def highest_rate(
    cells: Sequence[CellSummary],
    axes: Sequence[str],
    bound_ms: float | None,
    verdicts: SweepVerdicts,
) -> Recommendation:
    """The highest rate of each series of open loops, under the bound if there is one."""
    topic = "Highest rate" + (f" with p95 under {bound_ms:,.6g} ms" if bound_ms else "")
    lines = [line.replace("**", "") for line in rate_answers(cells, axes, bound_ms)]
    if not lines:
        return Recommendation(topic, None, ("no open loop with a rate was measured.",))
    limits = (
        "A rate holds if the whole 95 % interval of its p95 is under the bound. In an open loop "
        "below capacity, throughput is the rate.",
        spread_limit(verdicts),
    )
    return Recommendation(topic, lines[0], tuple(lines[1:]), limits)


def useful_concurrency(
    cells: Sequence[CellSummary],
    candidates: Candidates,
    axes: Sequence[str],
    verdicts: SweepVerdicts,
) -> Recommendation:
    topic = "Useful concurrency"
    closed = [cell for cell in candidates.cells if CONCURRENCY_KEY in cell.load_labels]
    if not any(CONCURRENCY_KEY in cell.load_labels for cell in cells):
        reason = "no cell has a closed-loop load, which keeps a fixed number of requests in flight."
        return Recommendation(topic, None, (reason,))
    if CONCURRENCY_KEY not in axes:
        return Recommendation(topic, None, ("all cells have the same concurrency.",))
    groups = matched(closed, CONCURRENCY_KEY, axes)
    series = {key: by_value for key, by_value in groups.items() if len(by_value) > 1}
    if not series:
        return Recommendation(topic, None, ("no two cells differ only in concurrency.",))
    ranked = sorted(series.items(), key=lambda item: -max(map(rate_of, item[1].values())))
    lines = [_concurrency_text(" ".join(key), by_value, verdicts) for key, by_value in ranked]
    rest = len(lines) - _LISTED
    more = (f"{rest} slower series are not listed.",) if rest > 0 else ()
    limits = (
        f"More concurrency is worthwhile if it adds at least {percent(MIN_GAIN - 1)} throughput "
        "and is shown to be faster.",
        spread_limit(verdicts),
    )
    return Recommendation(topic, lines[0], (*lines[1:_LISTED], *more), limits)


def _concurrency_text(
    name: str, by_value: Mapping[str, CellSummary], verdicts: SweepVerdicts
) -> str:
    """The concurrency up to which throughput of one series rises; `by_value` by concurrency."""
    ordered = sorted(by_value.items(), key=lambda item: float(item[0]))
    values, cells = [value for value, _ in ordered], [cell for _, cell in ordered]
    shown = _last_worthwhile(cells, lambda less, more: verdicts.throughput.better(more, less))
    possible = _last_worthwhile(cells, lambda less, more: _may_be_better(more, less, verdicts))
    start = f"{name}: " if name else ""
    best, last = cells[shown], cells[-1]
    if shown == len(cells) - 1:
        return (
            f"{start}at least {values[shown]}, the highest value measured. Throughput is "
            f"{_both_times(best, cells[shown - 1], verdicts)} at {values[shown - 1]}."
        )
    if possible > shown:
        more = cells[possible]
        return (
            f"{start}at least {values[shown]}, but it cannot be told whether {values[possible]} is "
            f"faster. At {values[possible]}, throughput is {_both_times(more, best, verdicts)} at "
            f"{values[shown]}."
        )
    return (
        f"{start}up to {values[shown]}. At {values[-1]}, throughput is "
        f"{_both_times(last, best, verdicts)} at {values[shown]}."
    )


def _last_worthwhile(
    cells: Sequence[CellSummary], is_better: Callable[[CellSummary, CellSummary], bool]
) -> int:
    """The index of the first cell than which no later one is worthwhile."""
    return next(
        index
        for index, less in enumerate(cells)
        if not any(
            rate_of(more) >= MIN_GAIN * rate_of(less) and is_better(less, more)
            for more in cells[index + 1 :]
        )
    )


def _may_be_better(more: CellSummary, less: CellSummary, verdicts: SweepVerdicts) -> bool:
    found = verdicts.throughput.between(more, less)
    return found is None or found.difference in (Difference.HIGHER, Difference.UNKNOWN)


def _both_times(a: CellSummary, b: CellSummary, verdicts: SweepVerdicts) -> str:
    """`1.10× and p95 1.50× that`; without the p95 if it cannot be compared."""
    p95 = p95_times_text(a, b)
    return times_text(a, b, verdicts) + (f" and p95 {p95}" if p95 else "") + " that"


def _comparisons(
    best: CellSummary,
    tied: Sequence[CellSummary],
    within: Sequence[CellSummary],
    verdicts: SweepVerdicts,
) -> list[str]:
    others = sorted((cell for cell in within if cell is not best), key=rate_of, reverse=True)
    if not others:
        return ["No other cell is within the bound."]
    following = tied[0] if tied else others[0]
    ratio = times_text(best, following, verdicts)
    verdict = verdict_suffix(best, following, verdicts.throughput)
    lines = [f"{ratio} the throughput of the next, {description(following)}{verdict}."]
    if slower := len(others) - len(tied) if tied else 0:
        verb = "is" if slower == 1 else "are"
        lines.append(f"{counted(slower, 'other cell')} {verb} shown to be slower.")
    return lines


def _range_limits(best: CellSummary, cells: Sequence[CellSummary]) -> list[str]:
    """Notes where the best cell has the largest value tried, so a larger one may be better."""
    notes = []
    same = [cell for cell in cells if cell.load_labels == best.load_labels]
    for axis in ("batch", *best.load_labels):
        if numeric_axis([axis], [cell.flat for cell in same]) is None:
            continue
        values = {float(cell.flat[axis]) for cell in same}
        if len(values) > 1 and float(best.flat[axis]) == max(values):
            notes.append(
                f"{axis}={best.flat[axis]} is the largest value tried: a larger one may be better."
            )
    return notes
