"""What is known of a metric: its name, how it is written, what it means, where it is shown."""

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
    NEITHER = "neither"  # it describes the cell

    @property
    def upwards(self) -> str:
        """What to say at the upright axis of a plot; empty where neither is better."""
        words = {Better.HIGHER: ", better upwards", Better.LOWER: ", better downwards"}
        return words.get(self, "")

    @property
    def rightwards(self) -> str:
        """What to say at the level axis of a plot; empty where neither is better."""
        words = {Better.HIGHER: ", better to the right", Better.LOWER: ", better to the left"}
        return words.get(self, "")

    @property
    def pick(self) -> Callable[[Iterable[float]], float]:
        """The best of some values."""
        return min if self is Better.LOWER else max


class Kind(StrEnum):
    """How a value is stored and written."""

    NUMBER = "number"
    COUNT = "count"  # a whole number, written in full
    SHARE = "share"  # stored as 0 to 1, written in percent
    CHANGE = "change"  # a relative change, -0.01 is a loss of 1 %; written with its sign and unit


class View(StrEnum):
    """A place that shows metrics; each shows its own in the catalogue's order.

    Results, `results.csv`, frames and MLflow runs hold every metric that a cell has.
    """

    TERMINAL = "terminal"  # the short table, which notebooks and the suite's report have too
    SWEEP = "sweep report"  # its table of all cells
    DASHBOARD = "dashboard"  # its table of cells
    CELL_SUMMARY = "cell report (summary)"
    CELL_LATENCY = "cell report (latency)"  # a row for each title of latency and service time
    CELL_STAGES = "cell report (stages)"
    CELL_MEMORY = "cell report (memory)"
    CELL_WORK = "cell report (batching and CPU)"
    CELL_STARTUP = "cell report (start-up)"
    QUALITY = "quality tables"  # of the cell's and the sweep's report
    COMPARISON = "comparisons"  # of a baseline and the best cell: suite's report, notebooks
    PREDECESSOR = "predecessor system"  # beside its figures
    FRAME = "frames (always)"  # a column of frames even where no cell has it
    MLFLOW_FIRST = "MLflow columns"  # of its view, and first in its charts
    MLFLOW_NOTE = "MLflow description"
    MLFLOW_BEST = "MLflow sweep run"  # which has the best of its cells


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Its name is a contract: result.json, results.csv, frames and MLflow have it.

    `unit` is what a value is written in. `short` is the title in columns, where it differs.
    `percentile` is the percentile of the requests that it is, 0 to 100: where too few requests
    support it, its text is marked. `in_every_cell` keeps a column where no cell has a value: every
    cell that finished has one.
    """

    name: str
    title: str
    unit: str
    better: Better
    about: str
    shown: tuple[View, ...] = ()
    kind: Kind = Kind.NUMBER
    digits: int = 3  # significant ones; whole numbers are written in full
    short: str = ""
    percentile: int | None = None
    in_every_cell: bool = False

    @property
    def family(self) -> str:
        """The name's part before the slash, by which MLflow groups."""
        return self.name.partition("/")[0]

    @property
    def key(self) -> str:
        """The name's part behind the slash."""
        return self.name.partition("/")[2]

    @property
    def label(self) -> str:
        """The title in full with its unit, for the axes of plots: `p95 latency (ms)`."""
        return _with_unit(self.title, self.unit)

    @property
    def heading(self) -> str:
        """The heading of a column: `p95 (ms)`. A rate's unit says it all: `pairs/s`."""
        if self.unit.endswith("/s"):
            return self.unit
        # A change is written with its unit
        return _with_unit(self.short or self.title, "" if self.kind is Kind.CHANGE else self.unit)

    @property
    def align(self) -> str:
        """`r`: numbers are aligned at their ends."""
        return "r"

    @property
    def low(self) -> str:
        """The name of the lower end of its 95 % interval, where it has one."""
        return f"{self.name}_low"

    @property
    def high(self) -> str:
        """The name of the upper end of its 95 % interval, where it has one."""
        return f"{self.name}_high"

    def text(self, value: float | None, more_digits: int = 0) -> str:
        """A value as tables write it, without the unit that the heading has; a dash for None."""
        if value is None or not math.isfinite(value):
            return ABSENT
        if self.kind is Kind.CHANGE:
            return percent(value, 1 + more_digits, signed=True)
        if self.kind is Kind.COUNT:
            return number(round(value))
        scale = 100 if self.kind is Kind.SHARE else 1
        return number(value * scale, self.digits + more_digits)

    def interval(self, metrics: Mapping[str, float]) -> tuple[float, float] | None:
        """Its 95 % interval among a cell's `metrics`."""
        low, high = metrics.get(self.low), metrics.get(self.high)
        return None if low is None or high is None else (low, high)


def distribution(
    family: str,
    title: str,
    begin: str,
    percentiles: Iterable[int],
    views: Mapping[str, tuple[View, ...]] | None = None,
) -> dict[str, Metric]:
    """Percentiles and moments in ms of a time per request: `p50`, …, `mean`, `std`, `min`, `max`.

    `views` says where each of them is shown.
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
    """The metric and the ends of its 95 % interval, which no table shows by themselves."""
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
