"""Writes docs/metrics.md from the catalogue of metrics: `make metrics-doc`."""

from __future__ import annotations

from crossbench.measure.catalogue import ALL
from crossbench.measure.metric import Kind, Metric
from crossbench.report.tables import markdown_table

_INTRO = """# Metrics

<!-- Written by `make metrics-doc` from crossbench/measure/catalogue.py: change it there. -->

This page lists every metric that crossbench reports. A metric has the same name in `result.json`,
in `results.csv`, in the data frames of `crossbench.load_sweep` and in MLflow, which groups metrics
by the part before the slash. A cell has no value for a metric that is undefined, for example
nDCG@10 without relevance judgements.

Percentiles are interpolated linearly between order statistics (Hyndman and Fan's type 7). Times,
throughput and correlations cover the requests that succeeded, without the warm-up. A MB is 10^6
bytes. The column *shown* lists the tables that contain the metric. Files, data frames and MLflow
runs contain all metrics."""

_ABOUT = {
    "throughput": "Work that the server completed per second of the measurement.",
    "latency": "Time from the moment when the request was due until its reply. A delay in sending "
    "the request is included.",
    "service": "Time from the moment when the request was sent until its reply.",
    "stage": "Parts of the service time of a request.",
    "memory": "Memory of the server's processes and of its device.",
    "batching": "Micro-batches that the scheduler formed from the requests.",
    "cpu": "CPU time of the server.",
    "harness": "The client and the machine, neither of which should be the bottleneck. A metric is "
    "absent if the operating system does not tell it.",
    "compile": "Compilation by the backend during the measurement.",
    "requests": "Number of requests on which the other metrics are based.",
    "startup": "Time spent before the measurement.",
    "quality": "Effect of the backend and the precision on scores and ranking, compared with an "
    "fp32 reference.",
    "correlation": "Pearson's r of throughput and latency, with its 95 % interval.",
    "best": "Metrics of the sweep's own MLflow run: the best value of its cells.",
    "cells": "Metrics of the sweep's own MLflow run: the number of cells by status.",
    "live": "Time series in a cell's MLflow run. The step is in seconds since the first request.",
}
_STORED = {Kind.SHARE: "%, stored as 0 to 1", Kind.CHANGE: "%, stored as a share of 1"}


def metrics_doc() -> str:
    """The text of docs/metrics.md: a table for each family of metrics, in the catalogue's order."""
    families: dict[str, list[Metric]] = {}
    for metric in ALL:
        families.setdefault(metric.family, []).append(metric)
    parts = [_INTRO]
    for family, metrics in families.items():
        parts += [f"## {family}", _ABOUT.get(family, ""), _table(metrics)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(metrics: list[Metric]) -> str:
    rows = [
        [
            f"`{metric.name}`",
            metric.title,
            _STORED.get(metric.kind, metric.unit),
            str(metric.better),
            metric.about,
            ", ".join(metric.shown),
        ]
        for metric in metrics
    ]
    return markdown_table(["name", "title", "unit", "better", "meaning", "shown"], rows)


if __name__ == "__main__":
    print(metrics_doc(), end="")
