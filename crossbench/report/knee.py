"""The knee of a concave curve, found by Kneedle's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_HEIGHT = 0.1  # share of the range; a curve closer to its chord than this has no knee


@dataclass(frozen=True, slots=True)
class Knee:
    """The knee's index among the points.

    `height` is its height above the chord, `lead` how much higher it lies than the next highest
    point, both as shares of the range (0..1).
    """

    index: int
    height: float
    lead: float


def find_knee(points: Sequence[tuple[float, float]]) -> Knee | None:
    """Return the point of a rising curve that lies highest above its chord.

    Kneedle's rule (Satopää, Albrecht, Irwin and Raghavan, Finding a "Kneedle" in a Haystack, 2011)
    without its smoothing, as a sweep has few points: both axes are scaled to 0..1 and the knee
    maximises y - x. `points` are (x, y) by rising x. Returns None for fewer than three points, or
    if no point lies 0.1 above the chord: then y rises in proportion to x.
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
