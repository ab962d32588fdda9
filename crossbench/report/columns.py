"""Metrics in tables: which columns a view has, and what a cell's value looks like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crossbench.measure import catalogue
from crossbench.measure.metric import Kind, Metric, View
from crossbench.report.tables import percentile_text


def columns(view: View, rows: Iterable[Mapping[str, float]]) -> list[Metric]:
    """The metrics of a view beside the throughput, which has a column of its own.

    `rows` are the metrics of each row: a metric that none of them has gets no column, unless every
    cell that finishes has it.
    """
    known = {name for metrics in rows for name, value in metrics.items() if value is not None}
    return [
        metric
        for metric in catalogue.shown(view)
        if metric not in catalogue.RATES and (metric.in_every_cell or metric.name in known)
    ]


def metric_text(metric: Metric, metrics: Mapping[str, float]) -> str:
    """A metric of a cell; a dash where it has none.

    A percentile is marked where too few requests support it; a metric that has an interval among
    the others is written with it.
    """
    value = metrics.get(metric.name)
    if metric.percentile is not None:
        return percentile_text(value, metric.percentile, requests_ok(metrics))
    interval = interval_of(metric, metrics)
    return f"{metric.text(value)} ({interval})" if interval else metric.text(value)


def interval_of(metric: Metric, metrics: Mapping[str, float]) -> str:
    """`low … high` of a metric's 95 % interval; empty where the cell has none."""
    ends = metric.interval(metrics)
    if ends is None:
        return ""
    low, high = (metric.text(end) if metric.kind is Kind.CHANGE else f"{end:.3f}" for end in ends)
    return f"{low} … {high}"


def text_with_unit(metric: Metric, metrics: Mapping[str, float]) -> str:
    """The same with its unit, for a sentence."""
    value = metrics.get(metric.name)
    if metric.percentile is not None:
        return percentile_text(value, metric.percentile, requests_ok(metrics), metric.unit)
    if metric.kind is Kind.CHANGE:
        return metric_text(metric, metrics)
    return f"{metric.text(value)} {metric.unit}".rstrip()


def requests_ok(metrics: Mapping[str, float]) -> int:
    """How many requests a cell's numbers are of."""
    return int(metrics.get(catalogue.REQUESTS_OK.name, 0))
