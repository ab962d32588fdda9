"""A server's own Prometheus metrics over a measurement: as metrics `scrape/…`, and over time."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from crossbench.measure.catalogue import scrape_name
from crossbench.system.rows import TEXT, load_rows, save_rows

SCRAPE_FILE = "scrape.parquet"
MOST_METRICS = 300  # a server may have thousands of series
LEAST_INTERVAL_S = 0.5
_UNFIT = re.compile(r"[^\w]", re.ASCII)


@dataclass(frozen=True, slots=True)
class ScrapedValue:
    """One value of one series at one time.

    `time_s` is in seconds since the start of the measurement, `kind` Prometheus' type of the
    `family`, and `labels` has the series' labels as text: `path="/rerank"`.
    """

    time_s: float
    family: str
    kind: str
    name: str
    labels: str
    value: float


_COLUMNS = {
    "time_s": "float64",
    "family": TEXT,
    "kind": TEXT,
    "name": TEXT,
    "labels": TEXT,
    "value": "float64",
}


def save_scraped(values: Sequence[ScrapedValue], folder: Path) -> Path:
    """Write `scrape.parquet` into `folder`, with one row per value."""
    return save_rows(values, _COLUMNS, folder / SCRAPE_FILE)


def load_scraped(folder: Path) -> list[ScrapedValue]:
    """Return the rows of `scrape.parquet` in `folder`; empty without such a file.

    Raises:
        ResultError: the file is broken.
    """
    return load_rows(folder / SCRAPE_FILE, ScrapedValue, list(_COLUMNS))


def parse(text: str, time_s: float) -> list[ScrapedValue]:
    """Return the values of a page of Prometheus text.

    Raises:
        ValueError: the text is not in Prometheus' format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    return [
        ScrapedValue(
            time_s,
            family.name,
            family.type,
            sample.name,
            ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items())),
            float(sample.value),
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


class Summed(StrEnum):
    """What is said of a family, whose series are added up."""

    GAUGE = "gauge"  # its value
    OBSERVED = "observed"  # the mean of what a histogram or a summary observed meanwhile
    COUNTER = "counter"  # its increase per second


@dataclass(frozen=True, slots=True)
class ScrapedSeries:
    """A family over time.

    `times_s` (n,) are those of the samples. A gauge has a value at each, (n,); the others have one
    for each time between two samples, (n - 1,), which is NaN if it is not known.
    """

    family: str
    summed: Summed
    times_s: Sequence[float]
    values: Sequence[float]


def scraped_metrics(values: Sequence[ScrapedValue]) -> dict[str, float]:
    """Return the summary of each family, added up over its labels, at most MOST_METRICS of them.

    A counter has its increase per second, a histogram or a summary the mean of what it observed
    meanwhile, and a gauge its mean and its maximum. What did not change by counting is left out.
    """
    found: dict[str, float] = {}
    for family, of_family in _families(values).items():
        for name, number in _summary(family, of_family):
            if math.isfinite(number) and len(found) < MOST_METRICS:
                found[scrape_name(_UNFIT.sub("_", name))] = number
    return found


def changed_series(values: Sequence[ScrapedValue]) -> list[ScrapedSeries]:
    """Return the families that changed, in the order of the page.

    A sample that is less than LEAST_INTERVAL_S before the next one is left out: the last one comes
    when the measurement ends, and a rate over milliseconds would be an outlier.
    """
    apart: list[float] = []
    for time_s in sorted({value.time_s for value in values}, reverse=True):
        if not apart or apart[-1] - time_s >= LEAST_INTERVAL_S:
            apart.append(time_s)
    kept = set(apart)
    families = _families([value for value in values if value.time_s in kept])
    series = (_series(family, of_family) for family, of_family in families.items())
    return [one for one in series if one and _changed(one)]


def _changed(series: ScrapedSeries) -> bool:
    known = {value for value in series.values if math.isfinite(value)}
    if series.summed is Summed.GAUGE:
        return len(known) > 1
    return any(known) if series.summed is Summed.COUNTER else bool(known)


def _families(values: Sequence[ScrapedValue]) -> Mapping[str, list[ScrapedValue]]:
    families: dict[str, list[ScrapedValue]] = defaultdict(list)
    for value in values:
        families[value.family].append(value)
    return families


def _summed(family: str, kind: str) -> Summed | None:
    """Return what is said of a family of Prometheus' type `kind`; None if it has no numbers."""
    if kind in ("info", "stateset") or family.endswith(("_info", "_created")):
        return None
    if kind == "counter" or (kind in ("unknown", "untyped") and family.endswith("_total")):
        return Summed.COUNTER
    return Summed.OBSERVED if kind in ("histogram", "summary") else Summed.GAUGE


def _summary(family: str, values: Sequence[ScrapedValue]) -> Iterator[tuple[str, float]]:
    summed = _summed(family, values[0].kind)
    if summed is Summed.COUNTER:
        if (rate := _increase(_counts(values), per_s=True)) is not None:
            yield f"{family.removesuffix('_total')}_per_s", rate
    elif summed is Summed.OBSERVED:
        total, count = (_increase(totals) for totals in _observed(values))
        if total is not None and count:
            yield f"{family}_mean", total / count
    elif summed is Summed.GAUGE:
        totals = _totals(values, lambda name: True)
        yield f"{family}_mean", sum(totals.values()) / len(totals)
        yield f"{family}_max", max(totals.values())


def _series(family: str, values: Sequence[ScrapedValue]) -> ScrapedSeries | None:
    summed = _summed(family, values[0].kind)
    if summed is None:
        return None
    if summed is Summed.GAUGE:
        totals = _totals(values, lambda name: True)
        return ScrapedSeries(family, summed, list(totals), list(totals.values()))
    if summed is Summed.COUNTER:
        counts = _counts(values)
        rates = [_increase(dict(ends), per_s=True) for ends in pairwise(counts.items())]
        known = [math.nan if rate is None else rate for rate in rates]
        return ScrapedSeries(family, summed, list(counts), known)
    sums, counts = _observed(values)
    means: list[float] = []
    times_s = sorted(sums.keys() & counts.keys())
    for ends in pairwise(times_s):
        total, count = (_increase({at: of[at] for at in ends}) for of in (sums, counts))
        means.append(math.nan if total is None or not count else total / count)
    return ScrapedSeries(family, summed, times_s, means)


def _counts(values: Sequence[ScrapedValue]) -> dict[float, float]:
    return _totals(values, lambda name: not name.endswith("_created"))


def _observed(values: Sequence[ScrapedValue]) -> tuple[dict[float, float], dict[float, float]]:
    """Return the sums and the counts of what was observed, by time."""
    return (
        _totals(values, lambda name: name.endswith("_sum")),
        _totals(values, lambda name: name.endswith("_count")),
    )


def _totals(values: Sequence[ScrapedValue], wanted: Callable[[str], bool]) -> dict[float, float]:
    """Return the sum over the labels by time, in the order of the times."""
    totals: dict[float, float] = defaultdict(float)
    for value in values:
        if wanted(value.name):
            totals[value.time_s] += value.value
    return totals


def _increase(totals: Mapping[float, float], *, per_s: bool = False) -> float | None:
    """Return by how much a counter grew; None if it is not known, or if it began again."""
    times = sorted(totals)
    if len(times) < 2:
        return None
    grown = totals[times[-1]] - totals[times[0]]
    if grown < 0:
        return None
    return grown / (times[-1] - times[0]) if per_s else grown
