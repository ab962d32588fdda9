"""The sections of a cell's report: each is Markdown, or empty without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.load.lengths import PASSAGES, QUERIES, LengthTable
from crossbench.load.lengths import PERCENTILES as PERCENT
from crossbench.measure import catalogue
from crossbench.measure.catalogue import PERCENTILES, STAGES
from crossbench.measure.correlation import correlations as correlations_of
from crossbench.measure.intervals import percentile_interval
from crossbench.measure.metric import Metric, View
from crossbench.measure.scraped import SCRAPE_FILE
from crossbench.measure.statistics import latency_range_table, percentile_supported
from crossbench.report.columns import metric_text, requests_ok
from crossbench.report.facts import DATASET, facts
from crossbench.report.tables import interval_text, markdown_table
from crossbench.types import RequestRecord
from crossbench.wording import ABSENT, number

# Section titles and their metrics; a metric without a value has no row
RESOURCES = {
    "Memory": View.CELL_MEMORY,
    "Batching and CPU": View.CELL_WORK,
    "Harness": View.CELL_HARNESS,
    "Start-up": View.CELL_STARTUP,
}

_CLOSED_LOOP = (
    " In a closed loop no request is due while all users wait, so a stall of the server delays "
    "only the requests in flight. Users who keep coming would see more of it: measure that with "
    "load=poisson."
)


def summary(records: Sequence[RequestRecord], metrics: Mapping[str, float], unit: str) -> str:
    throughput = catalogue.throughput(unit)
    if throughput.name not in metrics:
        return ""
    ends = throughput.interval(metrics)
    rows: list[list[str]] = []
    for metric in catalogue.shown(View.CELL_SUMMARY):
        if metric.name in metrics:
            text = metric_text(metric, metrics)
            same = metric is not throughput and metric.title == throughput.title
            rows.append(["" if same else metric.title, text, metric.unit])
    if records:
        span = max(r.received_s for r in records) - min(r.sent_s for r in records)
        rows.append(["duration", number(span), "s, from the first send to the last reply"])
    note = "The run had too few time windows to estimate how steady the throughput was."
    if ends:
        note = (
            f"The 95 % interval of this run's throughput is {interval_text(*ends)} {unit}/s, "
            "estimated from its time windows. It does not show how much another run of this "
            "configuration would differ: repeat the cell to measure that."
        )
    return f"## Summary\n\n{markdown_table(['', 'value', 'unit'], rows, 'lrl')}\n\n{note}"


def latency(
    records: Sequence[RequestRecord],
    metrics: Mapping[str, float],
    *,
    has_schedule: bool,
    offline: bool,
    over_saturated: bool,
) -> str:
    """The table of latencies, whose intervals are n/a if the cell was over-saturated."""
    if catalogue.latency(50).name not in metrics:
        return ""
    values = [record.latency_ms for record in records if record.ok]
    n = requests_ok(metrics) or len(values)
    by_title: dict[str, dict[str, Metric]] = {}
    for metric in catalogue.shown(View.CELL_LATENCY):
        by_title.setdefault(metric.short, {})[metric.family] = metric
    rows = []
    for title, families in by_title.items():
        of_latency, of_service = (families.get(family) for family in ("latency", "service"))
        q = of_latency.percentile if of_latency else None
        supported = q is not None and percentile_supported(q, n) and not over_saturated
        found = percentile_interval(values, q) if q is not None and supported else None
        rows.append([
            title,
            metric_text(of_latency, metrics) if of_latency else "",
            interval_text(found.low, found.high) if found else "" if q is None else ABSENT,
            metric_text(of_service, metrics) if of_service else "",
        ])  # fmt: skip
    table = markdown_table(
        ["", "latency (ms)", "95 % interval of this run (ms)", "service time (ms)"], rows, "lrrr"
    )
    notes = (
        "Latency starts when a request was due, service time when it was sent. Percentiles are "
        "interpolated linearly between order statistics (Hyndman and Fan's type 7). Their "
        "intervals allow for the dependence between consecutive requests and assume nothing about "
        "the distribution; – means that there are too few independent requests for one."
    )
    if not has_schedule:
        notes += _CLOSED_LOOP
    elif offline:
        notes += (
            " All requests were due at the start, so a request's latency says when its turn came."
        )
    if over_saturated:
        notes += (
            " The latencies grew for as long as the run lasted. They depend on its length, so they "
            "have no intervals."
        )
    if not all(percentile_supported(q, n) for q in PERCENTILES):
        notes += (
            f" `~` marks an unreliable percentile: fewer than five of the {n} requests lie beyond "
            "it."
        )
    return f"## Latency\n\n{table}\n\n{notes}"


def ranges(records: Sequence[RequestRecord], unit: str) -> str:
    table = ranges_table(records, unit)
    if not table:
        return ""
    return (
        f"## Throughput of single requests by latency\n\n{table}\n\nThe throughput of a request is "
        f"its {unit} divided by its latency. With several requests in flight, the server's "
        "throughput is a multiple of it."
    )


def ranges_table(records: Sequence[RequestRecord], unit: str) -> str:
    """Return the throughput of single requests by range of latency; "" if none succeeded."""
    rows = [
        [
            row.label,
            number(row.mean_pairs_per_s),
            number(row.min_pairs_per_s),
            number(row.max_pairs_per_s),
            str(row.requests),
        ]
        for row in latency_range_table(records)
    ]
    rates = [f"{kind} ({unit}/s)" for kind in ("average", "min", "max")]
    return markdown_table(["latency", *rates, "requests"], rows, "lrrrr") if rows else ""


def correlations(records: Sequence[RequestRecord], unit: str) -> str:
    found = correlations_of(records)
    if not found:
        return ""
    rows = [
        [
            catalogue.CORRELATION[name].short,
            f"{value.r:+.3f}",
            f"{interval.low:+.3f} … {interval.high:+.3f}" if interval else ABSENT,
            str(value.n),
        ]
        for name, value in found.items()
        for interval in (value.interval(),)
    ]
    notes = [
        "Per request, r is close to -1 by construction if all requests have the same number of "
        f"{unit}, because it relates 1 / latency to latency."
    ]
    if "window" in found:
        notes.append(
            "Per window, r shows whether the server slowed down as a whole at times. A fixed "
            "number of requests in flight also pulls it towards -1 (Little's law)."
        )
    else:
        notes.append(
            "Per window, r is undefined here: there are fewer than three windows, or no variation."
        )
    if "tokens" in found:
        notes.append("The last row shows how far the length of the texts explains the latency.")
    notes.append("Intervals are Fisher's, at the number of independent observations.")
    table = markdown_table(["correlation of", "r", "95 % interval of this run", "n"], rows, "lrrr")
    return f"## Correlation of throughput and latency\n\n{table}\n\n{' '.join(notes)}"


def stages(metrics: Mapping[str, float]) -> str:
    kinds = catalogue.STAGE_STATISTICS
    rows = [
        [stage, *(metric_text(catalogue.stage(stage, kind), metrics) for kind in kinds)]
        for stage in STAGES
    ]
    if all(cell == ABSENT for row in rows for cell in row[1:]):
        return ""
    headings = [catalogue.stage(STAGES[0], kind).heading for kind in kinds]
    table = markdown_table(["stage", *headings], rows, "lrrr")
    return (
        f"## Stages of a request\n\n{table}\n\nOverhead is the rest of the service time: "
        "network, serialisation and event loops. Means add up to the mean service time, "
        "percentiles do not."
    )


def resources(title: str, view: View, metrics: Mapping[str, float]) -> str:
    present = [
        [metric.title, metric_text(metric, metrics), metric.unit]
        for metric in catalogue.shown(view)
        if metric.name in metrics
    ]
    return (
        f"## {title}\n\n{markdown_table(['', 'value', 'unit'], present, 'lrl')}" if present else ""
    )


def scraped(metrics: Mapping[str, float]) -> str:
    """The server's own metrics, which `target.scrape` has sampled."""
    rows = [
        [f"`{catalogue.key(name)}`", number(value)]
        for name, value in sorted(metrics.items())
        if catalogue.is_scraped(name)
    ]
    if not rows:
        return ""
    return (
        f"## The server's own metrics\n\n{markdown_table(['', 'value'], rows, 'lr')}\n\nSampled "
        "about once a second, and added up over labels. `_per_s`: increase of a counter per second."
        " `_mean`: of a gauge, or of what a histogram observed during the measurement. `_max`: of "
        f"a gauge. `{SCRAPE_FILE}` has every sample."
    )


def _msmarco_lengths(table: LengthTable) -> dict[str, float]:
    """MS MARCO's token lengths, by the keys that a result's `dataset` uses."""
    quantiles = dict(zip(map(str, PERCENT), table.quantiles, strict=True))
    return {**quantiles, "mean": table.mean, "max": table.largest}


def dataset(dataset: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in dataset.items() if not key.endswith("_tokens")}
    parts = [facts("Data set", plain, DATASET)] if plain else []
    msmarco = {"passage": _msmarco_lengths(PASSAGES), "query": _msmarco_lengths(QUERIES)}
    kinds = [kind for kind in msmarco if isinstance(dataset.get(f"{kind}_tokens"), Mapping)]
    if kinds:
        headers, columns = [""], []
        for kind in kinds:
            headers += [f"{kind} tokens sent", f"MS MARCO {kind}"]
            columns += [dataset[f"{kind}_tokens"], msmarco[kind]]
        rows = [
            [key if key in {"mean", "max"} else f"p{key}",
             *(number(column.get(key)) for column in columns)]
            for key in msmarco["passage"]
        ]  # fmt: skip
        parts.append(markdown_table(headers, rows, "l" + "r" * len(columns)))
    return "\n\n".join(parts)
