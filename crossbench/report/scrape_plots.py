"""The plot of a server's own metrics over time, which `target.scrape` has sampled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossbench.measure.scraped import ScrapedSeries, ScrapedValue, Summed, changed_series
from crossbench.report.drawing import Draw
from crossbench.report.style import LABEL_SIZE, PALETTE, figure, headline, save, thousands
from crossbench.report.tables import shorten
from crossbench.wording import counted

_TITLE = "The server's own metrics over time"
_LEAST_SAMPLES = 3  # fewer show no course
_MOST_PANELS = 6
_NAME_CHARACTERS = 70
_FAMILY_CHARACTERS = 38  # that fit above a panel of half the width
_MARKED_POINTS = 30  # above this, the points of a gauge have no markers
# Those that Prometheus' libraries add to every server come last
_OF_EVERY_SERVER = ("process_", "python_", "go_")


def scrape_plots(values: Sequence[ScrapedValue], folder: Path, name: str) -> dict[str, Draw]:
    """The plot by its title; drawing it writes into `folder`. Empty if nothing has a course.

    `name` is the cell's, for the plot's second line, where a long one is shortened.
    """
    changed = [one for one in changed_series(values) if len(one.times_s) >= _LEAST_SAMPLES]
    if not changed:
        return {}
    return {_TITLE: partial(scraped_over_time, changed, folder, shorten(name, _NAME_CHARACTERS))}


def scraped_over_time(changed: Sequence[ScrapedSeries], folder: Path, name: str) -> Path:
    """Plot some of the families that changed, each in a panel of its own."""
    with scraped_figure(changed, name) as made:
        return save(made, folder, "scraped_over_time")


@contextmanager
def scraped_figure(changed: Sequence[ScrapedSeries], name: str) -> Iterator[Figure]:
    """The figure of `scraped_over_time`; its style applies while the context is open."""
    shown = _shown(changed)
    end_s = max(one.times_s[-1] for one in shown)
    rows, columns = -(-len(shown) // 2), min(2, len(shown))
    of_all = "" if len(shown) == len(changed) else f"; {len(shown)} of {len(changed)} that changed"
    with figure(0.9 + 1.6 * rows) as made:
        panels = made.subplots(rows, columns, squeeze=False).flatten()
        for axes, one in zip(panels, shown, strict=False):
            _draw(axes, one)
            axes.set_xlim(0, end_s)
        for axes in panels[len(shown) :]:
            axes.remove()
        made.supxlabel("time since the measurement began (s)", fontsize=9.5)
        samples = counted(max(len(one.times_s) for one in shown), "sample")
        headline(made, _TITLE, f"{name}: {samples}, added up over labels{of_all}")
        yield made


def _shown(changed: Sequence[ScrapedSeries]) -> list[ScrapedSeries]:
    """Choose the panels: of each kind in turn, then sorted by kind."""
    by_kind = [[one for one in changed if one.summed is summed] for summed in Summed]
    in_turn = [one for one in chain(*zip_longest(*by_kind)) if one is not None]
    in_turn.sort(key=lambda one: one.family.startswith(_OF_EVERY_SERVER))
    return sorted(in_turn[:_MOST_PANELS], key=lambda one: list(Summed).index(one.summed))


def _draw(axes: Axes, series: ScrapedSeries) -> None:
    known = [value for value in series.values if math.isfinite(value)]
    is_rate = series.summed is Summed.COUNTER  # of CPU seconds, in cores
    unit, factor = _unit(series.family, max(1.0, *known) if is_rate else max(known))
    values = [value * factor for value in series.values]
    colour = PALETTE[list(Summed).index(series.summed)]
    if series.summed is Summed.GAUGE:
        marker = "o" if len(values) <= _MARKED_POINTS else ""
        axes.plot(series.times_s, values, marker=marker, markersize=3, color=colour)
        label = unit or "value"
    else:
        axes.stairs(values, series.times_s, baseline=None, color=colour, linewidth=1.6)
        of_mean = f"mean ({unit})" if unit else "mean"
        label = of_mean if series.summed is Summed.OBSERVED else f"{unit} per second".lstrip()
    if min(known) >= 0:
        axes.set_ylim(0, max(known) * factor * 1.1 or 1.0)
    axes.set_title(shorten(series.family, _FAMILY_CHARACTERS), fontsize=LABEL_SIZE)
    axes.set_ylabel(label)
    axes.locator_params(axis="y", nbins=4)
    thousands(axes.yaxis)


def _unit(family: str, highest: float) -> tuple[str, float]:
    """Return the unit that the end of a family's name says, and the factor to it; "" without."""
    if family.endswith("_seconds"):
        return ("s", 1.0) if highest >= 1 else ("ms", 1e3)
    if family.endswith("_bytes"):
        return ("MB", 1e-6) if highest >= 1e5 else ("bytes", 1.0)
    return "", 1.0
