"""The knee of a curve that rises ever more slowly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_HEIGHT = 0.1  # of the ranges: a curve nearer to its chord than this has no knee


@dataclass(frozen=True, slots=True)
class Knee:
    """`index` of the point; `height` above the chord and `lead` on the next, as shares of 1."""

    index: int
    height: float
    lead: float


def find_knee(points: Sequence[tuple[float, float]]) -> Knee | None:
    """The point of a rising curve (x, y), by rising x, that lies highest above its chord.

    Kneedle's rule (Satopää, Albrecht, Irwin and Raghavan, Finding a "Kneedle" in a Haystack, 2011)
    for the few points of a sweep, without its smoothing: both axes are scaled to 0..1 and the knee
    maximises y - x. None below three points, or where none is 0.1 above the chord: then y rises
    about in step with x.
    """
    if len(points) < 3:
        return None
    (x0, y0), (x1, y1) = points[0], points[-1]
    if x1 <= x0 or y1 <= y0:
        return None
    heights = [(y - y0) / (y1 - y0) - (x - x0) / (x1 - x0) for x, y in points]
    best, second = sorted(heights, reverse=True)[:2]
    if best < LEAST_HEIGHT:
        return None
    return Knee(heights.index(best), best, best - second)
