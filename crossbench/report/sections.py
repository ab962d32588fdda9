"""The sections of a cell's report: each is Markdown, or empty where there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.load.lengths import PASSAGES, QUERIES, LengthTable
from crossbench.load.lengths import PERCENTILES as PERCENT
from crossbench.measure.correlation import correlations as correlations_of
from crossbench.measure.intervals import mean_interval, percentile_interval
from crossbench.measure.statistics import (
    PERCENTILES,
    STAGES,
    latency_range_table,
    percentile_supported,
    windows,
)
from crossbench.report.facts import DATASET, facts
from crossbench.report.tables import interval_text, markdown_table, percentile_text, plus_minus
from crossbench.types import RequestRecord
from crossbench.wording import ABSENT, number

# (metric, what it is called, unit); rows without a value are left out.
RESOURCES = {
    "Memory": (
        ("memory/model_mb", "the model's weights as held, one copy", "MB"),
        ("memory/rss_before_load_mb", "resident set before load", "MB"),
        ("memory/rss_after_load_mb", "resident set after load", "MB"),
        ("memory/rss_peak_mb", "resident set, peak", "MB"),
        ("memory/device_peak_mb", "device, peak", "MB"),
    ),
    "Batching and CPU": (
        ("batching/pairs_per_batch", "pairs per micro-batch", ""),
        ("batching/texts_per_batch", "texts per micro-batch", ""),
        ("batching/padding_waste", "padding waste", "%"),
        ("cpu/cores_used", "cores kept busy by the server's process", ""),
        ("harness/cores_used", "cores kept busy by the client's process (if not the same)", ""),
        ("requests/truncated_pairs", "pairs that were truncated", ""),
        ("requests/truncated_texts", "texts that were truncated", ""),
    ),
    "Start-up": (
        ("startup/load_s", "load the model", "s"),
        ("startup/compile_s", "compile", "s"),
        ("startup/warmup_s", "warm up", "s"),
    ),
}


def summary(records: Sequence[RequestRecord], metrics: Mapping[str, float], unit: str) -> str:
    if f"throughput/{unit}_per_s" not in metrics:
        return ""
    rate = metrics[f"throughput/{unit}_per_s"]
    # In the last window the load drains, so it is no sample of the steady rate.
    spread = mean_interval(windows(records).pairs_per_s[:-1])
    half = (spread.high - spread.low) / 2 if spread else None
    rows = [
        ["throughput", plus_minus(rate, half) if half else number(rate), f"{unit}/s"],
        ["", number(metrics.get("throughput/requests_per_s")), "requests/s"],
        ["", number(metrics.get("throughput/tokens_per_s")), "tokens/s"],
        ["requests", number(int(metrics.get("requests/ok", 0))), "ok"],
        ["", number(int(metrics.get("requests/failed", 0))), "failed"],
    ]
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
    if "latency/p50_ms" not in metrics:
        return ""
    values = [record.latency_ms for record in records if record.ok]
    n = int(metrics.get("requests/ok", len(values)))
    rows = []
    for q in PERCENTILES:
        found = percentile_interval(values, q)
        rows.append([
            f"p{q}",
            percentile_text(metrics.get(f"latency/p{q}_ms"), q, n),
            interval_text(found.low, found.high) if found else ABSENT,
            percentile_text(metrics.get(f"service/p{q}_ms"), q, n),
        ])  # fmt: skip
    for name in ("mean", "std", "min", "max"):
        both = [number(metrics.get(f"{kind}/{name}_ms")) for kind in ("latency", "service")]
        rows.append([name, both[0], "", both[1]])
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
    names = {
        "request": "request throughput and latency",
        "window": "window throughput and median latency",
        "tokens": "tokens of a request and latency",
    }
    rows = [
        [
            names[name],
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
    kinds = ("p50", "p95", "mean")
    rows = [
        [stage, *(number(metrics.get(f"stage/{stage}_{kind}_ms")) for kind in kinds)]
        for stage in STAGES
    ]
    if all(cell == ABSENT for row in rows for cell in row[1:]):
        return ""
    table = markdown_table(["stage", *(f"{kind} (ms)" for kind in kinds)], rows, "lrrr")
    return (
        f"## Stages of a request\n\n{table}\n\nOverhead is what the stages leave of the service "
        "time: network, serialisation, event loops. Means add up, percentiles do not."
    )


def resources(
    title: str, rows: Sequence[tuple[str, str, str]], metrics: Mapping[str, float]
) -> str:
    present = [
        [name, number(metrics[key] * (100 if unit == "%" else 1)), unit]
        for key, name, unit in rows
        if key in metrics
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
