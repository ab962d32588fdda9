"""Find places for the labels of points: near them, without overlaps, with leaders where needed.

All coordinates and lengths are in one unit, points (1/72 inch). Boxes are rows of x0, y0, x1, y1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEADER_FROM = 7.0  # a label further from the edge of its marker than this has a leader
FARTHEST = 85.0  # no label is further than this from the edge of its marker
_GAPS = (2.5, 6, 10, 15, 21, 28, 36, 46, 58, 72)  # tried distances from the marker to the label
_PADDING = 1.5  # around each label
_COST_OF_COVERING = 80.0  # for a label on a leader, which is allowed only if it fits nowhere else
_PASSES = 3
_LEADER_DOTS = 8  # that stand for a leader
_ATTEMPTS = 5
_CROWD, _STEP_BACK = 40.0, 14.0  # who steps back for a label without a place, and how far
_COST_OF_LINE = 1.0  # for each bit of a line that a label covers
_COST_OF_DOUBT = 12.0  # for a label that has no leader and that another marker is as near to
_COST_OF_ERROR = 25.0  # for a label that another marker is nearer to
_COST_OF_CROSSING = 40.0  # for a leader that meets a marker or another leader


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a label.

    `dx` and `dy` lead from the point to the label's centre. `gap` is the distance between the
    marker's edge and the label. `clear` says whether the label lies beside its point and further
    from all others. `leader` says whether a line has to join the two, and `start` is the place in
    the label's box (0 to 1, from the left and from below) where that line starts.
    """

    dx: float
    dy: float
    gap: float
    clear: bool
    leader: bool
    start: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Options:
    """The places of one label inside the frame and beside all markers: (k, 4) boxes, and so on."""

    boxes: Array
    gaps: Array
    costs: Array
    clear: Mask
    has_leader: Mask
    leaders: Array  # (k, dots, 2)


def find_places(
    points: Array, sizes: Array, radii: Array, frame: Array, lines: Array, *, thorough: bool
) -> list[Place | None]:
    """Return the place of each label, or None for a label that fits nowhere.

    `points` are (n, 2), `sizes` the widths and heights of the labels (n, 2), `radii` those of the
    markers (n,). Labels stay in the box `frame` and cover no marker, label or leader; they avoid
    the dots `lines` (m, 2) on the plot's lines if they can. Crowded points choose first; then
    each label in turn moves to the best place that the others leave. What happens to a label that
    finds no place is decided by `thorough`: those around it step back, which leaves room for
    leaders; if that does not help, it may cover leaders, and its own may lead below other labels.
    """
    markers = np.column_stack([points - radii[:, None], points + radii[:, None]])
    options = [
        _options(index, points, sizes[index] + 2 * _PADDING, radii, markers, frame, lines)
        for index in range(len(points))
    ]
    first_gaps = np.zeros(len(points))
    best: dict[int, int] = {}
    for _ in range(_ATTEMPTS):
        chosen = _choose(options, first_gaps)
        best = max(best, chosen, key=len)
        if len(chosen) == len(points) or not thorough:
            break
        without = [index for index in range(len(points)) if index not in chosen]
        distances = np.linalg.norm(points[:, None] - points[without], axis=-1)
        first_gaps[distances.min(axis=1) < _CROWD] += _STEP_BACK
    for index in (index for index in range(len(points)) if thorough and index not in best):
        others = [(options[other], k) for other, k in best.items()]
        place = _best(options[index], 0.0, others, _COST_OF_COVERING)
        if place is not None:
            best[index] = place
    return [
        _place(points[index], options[index], best[index]) if index in best else None
        for index in range(len(points))
    ]


def _choose(options: Sequence[_Options], first_gaps: Array) -> dict[int, int]:
    """Choose a place for each label that finds one, at least as far away as its first gap."""
    chosen: dict[int, int] = {}
    for _ in range(_PASSES):
        for index in sorted(range(len(options)), key=lambda index: len(options[index].costs)):
            chosen.pop(index, None)
            others = [(options[other], k) for other, k in chosen.items()]
            best = _best(options[index], first_gaps[index], others, np.inf)
            if best is not None:
                chosen[index] = best
    return chosen


def _options(
    index: int, points: Array, size: Array, radii: Array, markers: Array, frame: Array, lines: Array
) -> _Options:
    point, radius = points[index], radii[index]
    others = [other for other in range(len(points)) if other != index]
    centres = point + np.concatenate([_around(size, radius + gap) for gap in _GAPS])
    boxes = np.hstack([centres - size / 2, centres + size / 2])
    inside = np.all((frame[:2] < boxes[:, :2]) & (boxes[:, 2:] < frame[2:]), axis=1)
    nearest = np.clip(point, boxes[:, :2], boxes[:, 2:])
    gaps = np.hypot(*(nearest - point).T) - radius
    kept = inside & (gaps < FARTHEST) & ~_overlaps(boxes, markers).any(axis=1)
    centres, boxes, nearest, gaps = centres[kept], boxes[kept], nearest[kept], gaps[kept]
    nearest_other = np.full(len(boxes), np.inf)
    for other in others:
        distance = np.hypot(*(np.clip(points[other], boxes[:, :2], boxes[:, 2:]) - points[other]).T)
        nearest_other = np.minimum(nearest_other, distance - radii[other])
    doubtful = nearest_other < gaps + 1
    has_leader = (gaps > LEADER_FROM) | (doubtful & (gaps > _GAPS[0] + 1))
    edge = point + (nearest - point) * (radius / np.maximum(gaps + radius, 1e-9))[:, None]
    shares = np.linspace(0, 1, _LEADER_DOTS)[None, :, None]
    leaders = nearest[:, None, :] * (1 - shares) + edge[:, None, :] * shares
    meets = _dots_in_boxes(leaders, markers[others]).any(axis=1) & has_leader
    costs = (
        gaps
        + _preference(centres - point, size)
        + _COST_OF_DOUBT * (doubtful & ~has_leader)
        + _COST_OF_ERROR * (nearest_other < gaps - 0.5)
        + _COST_OF_LINE * _dots_inside(boxes, lines)
        + _COST_OF_CROSSING * meets
    )
    return _Options(boxes, gaps, costs, ~(has_leader | doubtful), has_leader, leaders)


def _around(size: Array, clearance: float) -> Array:
    """Centres of boxes of this size around the origin, whose sides keep the clearance from it."""
    half = size / 2 + clearance
    across, along = np.linspace(-1, 1, 9) * half[0], np.array([-0.5, 0, 0.5]) * half[1]
    return np.concatenate(
        [np.column_stack([across, np.full(9, side * half[1])]) for side in (1, -1)]
        + [np.column_stack([np.full(3, side * half[0]), along]) for side in (1, -1)]
    )


def _preference(offsets: Array, size: Array) -> Array:
    """A small cost (k,): beside the point is best, first on the right, then above and below."""
    beside = np.abs(offsets[:, 0]) > size[0] / 2
    level = np.abs(offsets[:, 1]) < 0.1
    centred = np.abs(offsets[:, 0]) < 0.1
    cost = np.where(beside & level, np.where(offsets[:, 0] > 0, 0.0, 0.5), 2.5)
    return np.where(centred, np.where(offsets[:, 1] > 0, 1.0, 1.5), cost)


def _best(
    option: _Options, first_gap: float, others: Sequence[tuple[_Options, int]], covering: float
) -> int | None:
    """The cheapest place that is compatible with the others' places; None if there is none.

    `covering` is the cost of a label on a leader.
    """
    costs = np.where(option.gaps < first_gap, np.inf, option.costs)
    if others:
        boxes = np.array([other.boxes[k] for other, k in others])
        costs[_overlaps(option.boxes, boxes).any(axis=1)] = np.inf
        rows = np.flatnonzero(option.has_leader & np.isfinite(costs))
        costs[rows[_dots_in_boxes(option.leaders[rows], boxes).any(axis=1)]] += covering
    for leader in (other.leaders[k] for other, k in others if other.has_leader[k]):
        costs[_dots_inside(option.boxes, leader) > 0] += covering
        costs[_crosses(option.leaders, leader) & option.has_leader] += _COST_OF_CROSSING
    best = int(np.argmin(costs)) if len(costs) else -1
    return best if best >= 0 and np.isfinite(costs[best]) else None


def _place(point: Array, option: _Options, k: int) -> Place:
    box, dots = option.boxes[k], option.leaders[k]
    box = np.concatenate([box[:2] + _PADDING, box[2:] - _PADDING])
    centre = (box[:2] + box[2:]) / 2
    start = np.clip((dots[0] - box[:2]) / (box[2:] - box[:2]), 0, 1)
    return Place(
        float(centre[0] - point[0]),
        float(centre[1] - point[1]),
        float(option.gaps[k]),
        bool(option.clear[k]),
        bool(option.has_leader[k]),
        (float(start[0]), float(start[1])),
    )


def _overlaps(boxes: Array, others: Array) -> Mask:
    """Which boxes (k, 4) overlap which others (m, 4): (k, m)."""
    a, b = boxes[:, None, :], others[None, :, :]
    apart = (a[..., :2] >= b[..., 2:]) | (b[..., :2] >= a[..., 2:])
    overlapping: Mask = ~np.any(apart, axis=-1)
    return overlapping


def _dots_inside(boxes: Array, dots: Array) -> NDArray[np.int64]:
    """How many of the dots (m, 2) lie in each of the boxes (k, 4): (k,)."""
    inside = (boxes[:, None, :2] < dots) & (dots < boxes[:, None, 2:])
    counts: NDArray[np.int64] = np.count_nonzero(np.all(inside, axis=-1), axis=1)
    return counts


def _dots_in_boxes(dots: Array, boxes: Array) -> Mask:
    """Which rows of dots (k, d, 2) have a dot in which of the boxes (m, 4): (k, m)."""
    at = dots[:, :, None, :]
    inside = (boxes[:, :2] < at) & (at < boxes[:, 2:])
    found: Mask = np.any(np.all(inside, axis=-1), axis=1)
    return found


def _crosses(leaders: Array, other: Array) -> Mask:
    """Which leaders (k, d, 2) cross the line from the other's first dot to its last one: (k,)."""
    a, b = leaders[:, 0], leaders[:, -1]
    c, d = other[0], other[-1]
    found: NDArray[np.bool_] = (_side(a, b, c) * _side(a, b, d) < 0) & (
        _side(c, d, a) * _side(c, d, b) < 0
    )
    return found


def _side(start: Array, end: Array, dot: Array) -> Array:
    """On which side of the line from start to end the dot lies: the sign of the result."""
    line, to_dot = end - start, dot - start
    side: Array = line[..., 0] * to_dot[..., 1] - line[..., 1] * to_dot[..., 0]
    return side
