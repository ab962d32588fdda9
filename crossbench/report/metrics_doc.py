"""docs/metrics.md, written from the catalogue: `make metrics-doc`."""

from __future__ import annotations

from crossbench.measure.catalogue import ALL
from crossbench.measure.metric import Kind, Metric
from crossbench.report.tables import markdown_table

_INTRO = """# Metrics

<!-- Written by `make metrics-doc` from crossbench/measure/catalogue.py: change it there. -->

Every metric that crossbench reports. The name is the same in `result.json`, in `results.csv`, in
the frames of `crossbench.load_sweep` and in MLflow, which groups metrics by the part before the
slash. A cell has no value where a metric is undefined, for example nDCG@10 without relevance
judgements.

Percentiles are linear between the order statistics (Hyndman and Fan's type 7). Times, throughput
and correlations are of the requests that succeeded, without the warm-up. A MB is 10^6 bytes.
*Shown* lists the tables that have the metric; files, frames and MLflow runs hold all of them."""

_ABOUT = {
    "throughput": "What the server answered, per second of the measurement.",
    "latency": "How long a client waits, counted from the moment when the request was due: a "
    "request that is sent late has waited already.",
    "service": "The same from the moment when the request was really sent.",
    "stage": "Where the service time of a request goes.",
    "memory": "Memory of the server's processes and of its device.",
    "batching": "What the scheduler made of the requests.",
    "cpu": "CPU time of the server.",
    "harness": "CPU time of the client, which should never be the bottleneck.",
    "compile": "Whether the backend compiled while it was measured.",
    "requests": "How many requests the numbers rest on.",
    "startup": "What happens before the measurement.",
    "quality": "What the backend and the precision did to scores and ranking, against an fp32 "
    "reference.",
    "correlation": "Pearson's r of throughput and latency, with its interval.",
    "best": "Of a sweep's own MLflow run.",
    "cells": "Of a sweep's own MLflow run.",
    "live": "Of a cell's MLflow run over time. The step is in seconds since the first request.",
}
_STORED = {Kind.SHARE: "%, stored as 0 to 1", Kind.CHANGE: "%, stored as a share of 1"}


def metrics_doc() -> str:
    """The page: a table for each family of metrics, in the catalogue's order."""
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
