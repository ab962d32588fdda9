"""Metrics in tables: the columns of a view, and values as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crossbench.measure import catalogue
from crossbench.measure.metric import Kind, Metric, View
from crossbench.report.tables import percentile_text


def columns(view: View, rows: Iterable[Mapping[str, float]]) -> list[Metric]:
    """The metrics of a view, without throughput, which has its own column.

    `rows` holds the metrics of each row. A metric that no row has gets no column, unless it is
    `in_every_cell`.
    """
    known = {name for metrics in rows for name, value in metrics.items() if value is not None}
    return [
        metric
        for metric in catalogue.shown(view)
        if metric not in catalogue.RATES and (metric.in_every_cell or metric.name in known)
    ]


def metric_text(metric: Metric, metrics: Mapping[str, float]) -> str:
    """A metric's value as text without its unit; a dash if the cell has none.

    A percentile is marked if too few requests lie beyond it. A metric with a 95 % interval among
    `metrics` is followed by it.
    """
    value = metrics.get(metric.name)
    if metric.percentile is not None:
        return percentile_text(value, metric.percentile, requests_ok(metrics))
    interval = interval_of(metric, metrics)
    return f"{metric.text(value)} ({interval})" if interval else metric.text(value)


def interval_of(metric: Metric, metrics: Mapping[str, float]) -> str:
    """A metric's 95 % interval as `low … high`; empty if the cell has none."""
    ends = metric.interval(metrics)
    if ends is None:
        return ""
    in_text = metric.kind is Kind.CHANGE or bool(metric.unit)
    low, high = (metric.text(end) if in_text else f"{end:.3f}" for end in ends)
    return f"{low} … {high}"


def text_with_unit(metric: Metric, metrics: Mapping[str, float]) -> str:
    """A metric's value as text with its unit, for use in a sentence."""
    value = metrics.get(metric.name)
    if metric.percentile is not None:
        return percentile_text(value, metric.percentile, requests_ok(metrics), metric.unit)
    if metric.kind is Kind.CHANGE:
        return metric_text(metric, metrics)
    return f"{metric.text(value)} {metric.unit}".rstrip()


def requests_ok(metrics: Mapping[str, float]) -> int:
    """The number of requests that succeeded, on which a cell's metrics are based."""
    return int(metrics.get(catalogue.REQUESTS_OK.name, 0))
