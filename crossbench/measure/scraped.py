"""A server's own Prometheus metrics over a measurement, summarised as metrics `scrape/…`."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossbench.measure.catalogue import scrape_name
from crossbench.system.rows import TEXT, save_rows

SCRAPE_FILE = "scrape.parquet"
MOST_METRICS = 300  # a server may have thousands of series
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


def scraped_metrics(values: Sequence[ScrapedValue]) -> dict[str, float]:
    """Return the summary of each family, added up over its labels, at most MOST_METRICS of them.

    A counter has its increase per second, a histogram or a summary the mean of what it observed
    meanwhile, and a gauge its mean and its maximum. What did not change by counting is left out.
    """
    families: dict[str, list[ScrapedValue]] = defaultdict(list)
    for value in values:
        families[value.family].append(value)
    found: dict[str, float] = {}
    for family, of_family in families.items():
        for name, number in _summary(family, of_family):
            if math.isfinite(number) and len(found) < MOST_METRICS:
                found[scrape_name(_UNFIT.sub("_", name))] = number
    return found


def _summary(family: str, values: Sequence[ScrapedValue]) -> Iterator[tuple[str, float]]:
    kind = values[0].kind
    if kind in ("info", "stateset") or family.endswith(("_info", "_created")):
        return
    if kind == "counter" or (kind in ("unknown", "untyped") and family.endswith("_total")):
        totals = _totals(values, lambda name: not name.endswith("_created"))
        if (rate := _increase(totals, per_s=True)) is not None:
            yield f"{family.removesuffix('_total')}_per_s", rate
    elif kind in ("histogram", "summary"):
        total = _increase(_totals(values, lambda name: name.endswith("_sum")))
        count = _increase(_totals(values, lambda name: name.endswith("_count")))
        if total is not None and count:
            yield f"{family}_mean", total / count
    else:
        totals = _totals(values, lambda name: True)
        yield f"{family}_mean", sum(totals.values()) / len(totals)
        yield f"{family}_max", max(totals.values())


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
