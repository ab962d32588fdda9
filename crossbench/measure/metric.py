"""The description of a metric: its name, unit, format and meaning, and the views that show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from crossbench.wording import ABSENT, number, percent


class Better(StrEnum):
    """Which way a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"  # the metric only describes the cell

    @property
    def upwards(self) -> str:
        """Suffix for the label of a vertical axis; empty if neither direction is better."""
        labels = {Better.HIGHER: ", better upwards", Better.LOWER: ", better downwards"}
        return labels.get(self, "")

    @property
    def rightwards(self) -> str:
        """Suffix for the label of a horizontal axis; empty if neither direction is better."""
        labels = {Better.HIGHER: ", better to the right", Better.LOWER: ", better to the left"}
        return labels.get(self, "")

    @property
    def pick(self) -> Callable[[Iterable[float]], float]:
        """Function that returns the best of several values."""
        return min if self is Better.LOWER else max


class Kind(StrEnum):
    """How a value is stored and formatted."""

    NUMBER = "number"
    COUNT = "count"  # an integer, formatted in full
    SHARE = "share"  # stored as 0 to 1, formatted in percent
    CHANGE = "change"  # a relative change: -0.01 is formatted as -1.0 %


class View(StrEnum):
    """A place that shows a selection of metrics, in the order of the catalogue.

    Results, `results.csv`, data frames and MLflow runs contain all metrics of a cell.
    """

    TERMINAL = "terminal"  # the short table, also in notebooks and in the suite's report
    SWEEP = "sweep report"  # the table of all cells
    DASHBOARD = "dashboard"  # the table of cells
    CELL_SUMMARY = "cell report (summary)"
    CELL_LATENCY = "cell report (latency)"  # one row per statistic of latency and service time
    CELL_STAGES = "cell report (stages)"
    CELL_MEMORY = "cell report (memory)"
    CELL_WORK = "cell report (batching and CPU)"
    CELL_HARNESS = "cell report (harness)"
    CELL_STARTUP = "cell report (start-up)"
    QUALITY = "quality tables"  # in the reports of cells and sweeps
    COMPARISON = "comparisons"  # baseline against best cell: suite's report, notebooks
    PREDECESSOR = "predecessor system"  # the comparison with its figures
    FRAME = "frames (always)"  # a column of data frames even if no cell has a value
    MLFLOW_FIRST = "MLflow columns"  # shown in MLflow's table and first in its charts
    MLFLOW_NOTE = "MLflow description"
    MLFLOW_BEST = "MLflow sweep run"  # the parent run has the best value of its cells


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Its name is a public contract of result.json, results.csv, frames and MLflow.

    `unit` is the unit of formatted values. `short` is the title in table headings, if it differs.
    `percentile` is set (0 to 100) if the metric is a percentile over the requests: its text is
    marked if too few requests support it. `in_every_cell` is True if every finished cell has a
    value, so that its column is never dropped.
    """

    name: str
    title: str
    unit: str
    better: Better
    about: str
    shown: tuple[View, ...] = ()
    kind: Kind = Kind.NUMBER
    digits: int = 3  # significant digits; integers are formatted in full
    short: str = ""
    percentile: int | None = None
    in_every_cell: bool = False

    @property
    def family(self) -> str:
        """The part of the name before the slash, by which MLflow groups metrics."""
        return self.name.partition("/")[0]

    @property
    def key(self) -> str:
        """The part of the name after the slash."""
        return self.name.partition("/")[2]

    @property
    def label(self) -> str:
        """The full title with the unit, for the axes of plots: `p95 latency (ms)`."""
        return _with_unit(self.title, self.unit)

    @property
    def heading(self) -> str:
        """The heading of a column: `p95 (ms)`, or only the unit of a rate: `pairs/s`."""
        if self.unit.endswith("/s"):
            return self.unit
        # Values of a change include the unit
        return _with_unit(self.short or self.title, "" if self.kind is Kind.CHANGE else self.unit)

    @property
    def align(self) -> str:
        """The alignment of the column: `r`, since numbers are right-aligned."""
        return "r"

    @property
    def low(self) -> str:
        """The name of the metric with the lower end of the 95 % interval."""
        return f"{self.name}_low"

    @property
    def high(self) -> str:
        """The name of the metric with the upper end of the 95 % interval."""
        return f"{self.name}_high"

    def text(self, value: float | None, more_digits: int = 0) -> str:
        """Format a value for a table without the unit of the heading, or a dash for None."""
        if value is None or not math.isfinite(value):
            return ABSENT
        if self.kind is Kind.CHANGE:
            return percent(value, 1 + more_digits, signed=True)
        if self.kind is Kind.COUNT:
            return number(round(value))
        scale = 100 if self.kind is Kind.SHARE else 1
        return number(value * scale, self.digits + more_digits)

    def interval(self, metrics: Mapping[str, float]) -> tuple[float, float] | None:
        """Return the 95 % interval in a cell's `metrics`, None if it has none."""
        low, high = metrics.get(self.low), metrics.get(self.high)
        return None if low is None or high is None else (low, high)


def distribution(
    family: str,
    title: str,
    begin: str,
    percentiles: Iterable[int],
    views: Mapping[str, tuple[View, ...]] | None = None,
) -> dict[str, Metric]:
    """Return the metrics of a time per request in ms: `p50`, …, `mean`, `std`, `min`, `max`.

    `views` maps each of them to the views that show it.
    """
    shown = views or {}
    quantiles = {
        f"p{q}": Metric(
            f"{family}/p{q}_ms", f"p{q} {title}", "ms", Better.LOWER,
            f"{q} % of the requests are answered within this time, {begin}.",
            (View.CELL_LATENCY, *shown.get(f"p{q}", ())), short=f"p{q}", percentile=q,
            in_every_cell=True,
        )
        for q in percentiles
    }  # fmt: skip
    moments = {
        name: Metric(
            f"{family}/{name}_ms", f"{name} {title}", "ms", Better.LOWER, f"{about}, {begin}.",
            (View.CELL_LATENCY, *shown.get(name, ())), short=name,
        )
        for name, about in (
            ("mean", "Mean time until the reply"),
            ("std", "Standard deviation of the time until the reply"),
            ("min", "Shortest time until a reply"),
            ("max", "Longest time until a reply"),
        )
    }  # fmt: skip
    return quantiles | moments


def with_interval(metric: Metric) -> tuple[Metric, Metric, Metric]:
    """Return the metric and the ends of its 95 % interval, which tables do not show separately."""
    low, high = (
        replace(
            metric, name=name, title=f"{metric.title}, {end} end", short="", shown=(),
            about=f"The {end} end of its 95 % interval.",
        )
        for name, end in ((metric.low, "lower"), (metric.high, "upper"))
    )  # fmt: skip
    return metric, low, high


def _with_unit(title: str, unit: str) -> str:
    return f"{title} ({unit})" if unit else title
