"""The sections of a cell's report: each is Markdown, or empty where there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.load.lengths import PASSAGES, QUERIES, LengthTable
from crossbench.load.lengths import PERCENTILES as PERCENT
from crossbench.measure import catalogue
from crossbench.measure.catalogue import PERCENTILES, STAGES
from crossbench.measure.correlation import correlations as correlations_of
from crossbench.measure.intervals import mean_interval, percentile_interval
from crossbench.measure.metric import Metric, View
from crossbench.measure.statistics import latency_range_table, percentile_supported, windows
from crossbench.report.columns import metric_text, requests_ok
from crossbench.report.facts import DATASET, facts
from crossbench.report.tables import interval_text, markdown_table, plus_minus
from crossbench.types import RequestRecord
from crossbench.wording import ABSENT, number

# Rows without a value are left out
RESOURCES = {
    "Memory": View.CELL_MEMORY,
    "Batching and CPU": View.CELL_WORK,
    "Start-up": View.CELL_STARTUP,
}


def summary(records: Sequence[RequestRecord], metrics: Mapping[str, float], unit: str) -> str:
    throughput = catalogue.throughput(unit)
    if throughput.name not in metrics:
        return ""
    rate = metrics[throughput.name]
    # In the last window the load drains, so it is no sample of the steady rate.
    spread = mean_interval(windows(records).pairs_per_s[:-1])
    half = (spread.high - spread.low) / 2 if spread else None
    rows: list[list[str]] = []
    for metric in catalogue.shown(View.CELL_SUMMARY):
        if metric.name in metrics:
            text = metric_text(metric, metrics)
            if metric is throughput and half:
                text = plus_minus(rate, half)
            same = metric is not throughput and metric.title == throughput.title
            rows.append(["" if same else metric.title, text, metric.unit])
    if records:
        span = max(r.received_s for r in records) - min(r.sent_s for r in records)
        rows.append(["duration", number(span), "s, first send to last reply"])
    note = "Too few windows to tell how steady the throughput was."
    if half:
        note = (
            "± is the 95 % interval from window to window of this run (batch means). It says "
            "nothing about another run: repeat the cell for that."
        )
    return f"## Summary\n\n{markdown_table(['', 'value', 'unit'], rows, 'lrl')}\n\n{note}"


def latency(records: Sequence[RequestRecord], metrics: Mapping[str, float]) -> str:
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
        found = None if q is None else percentile_interval(values, q)
        rows.append([
            title,
            metric_text(of_latency, metrics) if of_latency else "",
            interval_text(found.low, found.high) if found else "" if q is None else ABSENT,
            metric_text(of_service, metrics) if of_service else "",
        ])  # fmt: skip
    table = markdown_table(
        ["", "latency (ms)", "95 % interval (ms)", "service time (ms)"], rows, "lrrr"
    )
    notes = (
        "Latency starts when a request was due, service time when it was sent. Percentiles are "
        "linear between order statistics (Hyndman and Fan's type 7); their intervals need no "
        "assumption on the distribution, but take the requests as independent."
    )
    if not all(percentile_supported(q, n) for q in PERCENTILES):
        notes += (
            f" `~` marks a percentile with fewer than five of the {n} requests beyond it: the "
            "word of a few outliers."
        )
    return f"## Latency\n\n{table}\n\n{notes}"


def ranges(records: Sequence[RequestRecord], unit: str) -> str:
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
    if not rows:
        return ""
    rates = [f"{kind} ({unit}/s)" for kind in ("average", "min", "max")]
    headers = ["latency", *rates, "requests"]
    return (
        "## Throughput of single requests by latency\n\n"
        f"{markdown_table(headers, rows, 'lrrrr')}\n\nA request's throughput is its {unit} over "
        "its latency; with several requests in flight the server's is a multiple of it."
    )


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
        "By request it is close to -1 by construction where all requests have the same number of "
        f"{unit}: it sets 1 / latency against latency."
    ]
    if "window" in found:
        notes.append(
            "By window it says whether the server was slower for everyone at times; a fixed number "
            "of requests in flight draws it to -1 too (Little's law)."
        )
    else:
        notes.append("By window it is undefined here: fewer than three windows, or no variation.")
    if "tokens" in found:
        notes.append("The last one tells how far the length of the texts explains the latency.")
    notes.append("Intervals are Fisher's and too narrow where neighbours resemble each other.")
    table = markdown_table(["correlation of", "r", "95 % interval", "n"], rows, "lrrr")
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
        f"## Stages of a request\n\n{table}\n\nOverhead is what the stages leave of the service "
        "time: network, serialisation, event loops. Means add up, percentiles do not."
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


def _usual(table: LengthTable) -> dict[str, float]:
    """MS MARCO's lengths by the keys of a result's data set."""
    quantiles = dict(zip(map(str, PERCENT), table.quantiles, strict=True))
    return {**quantiles, "mean": table.mean, "max": table.largest}


def dataset(dataset: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in dataset.items() if not key.endswith("_tokens")}
    parts = [facts("Data set", plain, DATASET)] if plain else []
    usual = {"passage": _usual(PASSAGES), "query": _usual(QUERIES)}
    kinds = [kind for kind in usual if isinstance(dataset.get(f"{kind}_tokens"), Mapping)]
    if kinds:
        headers, columns = [""], []
        for kind in kinds:
            headers += [f"{kind} tokens sent", f"MS MARCO {kind}"]
            columns += [dataset[f"{kind}_tokens"], usual[kind]]
        rows = [
            [key if key in {"mean", "max"} else f"{key} %",
             *(number(column.get(key)) for column in columns)]
            for key in usual["passage"]
        ]  # fmt: skip
        parts.append(markdown_table(headers, rows, "l" + "r" * len(columns)))
    return "\n\n".join(parts)
