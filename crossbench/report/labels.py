"""Labels of a plot's points: their places are found in points (1/72 inch), then they are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from crossbench.report.label_places import Place, find_places
from crossbench.report.style import GREY, LABEL_SIZE, settle, text_sizes

_DOT_DISTANCE = 3.0  # between the dots that stand for a line


@dataclass(frozen=True, slots=True)
class Label:
    """The text of a point at (x, y) in data coordinates, and the radius of its marker in points."""

    x: float
    y: float
    text: str
    radius: float


def places_of(axes: Axes, labels: Sequence[Label], *, thorough: bool) -> list[Place | None]:
    """Return where each label can lie in `axes`; None for one that fits nowhere.

    With `thorough`, leaders lead to labels that find no place at first (see `find_places`).

    Call this when all else is drawn: it computes the layout, which must not change any more.
    """
    made = axes.get_figure(root=True)
    assert made is not None
    settle(made)
    if not labels:
        return []
    scale = 72 / made.dpi
    frame = axes.get_window_extent()
    return find_places(
        axes.transData.transform([(label.x, label.y) for label in labels]) * scale,
        text_sizes(made, [label.text for label in labels]),
        np.array([label.radius for label in labels]),
        np.array([frame.x0, frame.y0, frame.x1, frame.y1]) * scale,
        np.array(list(_dots_on_lines(axes, scale))).reshape(-1, 2),
        thorough=thorough,
    )


def draw_labels(axes: Axes, labels: Sequence[Label], places: Sequence[Place | None]) -> None:
    """Draw the labels at their places, and the leader of each that has one."""
    for label, place in zip(labels, places, strict=True):
        if place is None:
            continue
        leader = {
            "arrowstyle": "-", "color": GREY, "linewidth": 0.7, "relpos": place.start,
            "shrinkA": 0, "shrinkB": label.radius,
        }  # fmt: skip
        axes.annotate(
            label.text, (label.x, label.y), (place.dx, place.dy), textcoords="offset points",
            fontsize=LABEL_SIZE, ha="center", va="center", zorder=5,
            arrowprops=leader if place.leader else None,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )  # fmt: skip


def _dots_on_lines(axes: Axes, scale: float) -> Iterator[tuple[float, float]]:
    """Dots along the lines and error bars of `axes`; a pixel has `scale` points."""
    lines = [
        np.column_stack([np.asarray(line.get_xdata()), np.asarray(line.get_ydata())]).astype(float)
        for line in axes.get_lines()
        if line.get_linestyle() not in {"None", "", " "}
    ]
    for bars in axes.collections:
        if isinstance(bars, LineCollection):
            lines += [np.asarray(ends, dtype=float) for ends in bars.get_segments() if len(ends)]
    for line in lines:
        dots = axes.transData.transform(line) * scale
        for (x0, y0), (x1, y1) in itertools.pairwise(dots[np.isfinite(dots).all(axis=1)]):
            count = max(2, int(np.hypot(x1 - x0, y1 - y0) / _DOT_DISTANCE))
            yield from zip(np.linspace(x0, x1, count), np.linspace(y0, y1, count), strict=True)
