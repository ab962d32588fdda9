"""How a plot with one point per cell says which cell is which: by labels, colours and markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from crossbench.report.cells import CellSummary
from crossbench.report.labels import Label, draw_labels, places_of
from crossbench.report.series import legend_entry, series_name, series_names, series_style
from crossbench.report.style import MARKERS
from crossbench.report.tables import shorten
from crossbench.wording import ABSENT, join_words

_UNCLEAR = 1  # labels with all that varies are used if at most so many of them are unclear
_LABEL_CHARACTERS = 40
_RADIUS, _WIDE_RADIUS = 4.5, 8.0  # of markers, in points


@dataclass(frozen=True, slots=True)
class PointCoding:
    """What shows the cells' settings: the axes that colours show, and the axis that labels show.

    Without an axis for labels, they have all that varies, and colours need no legend. `names` are
    those of all series of the sweep, so that plots which do not show all have the same colours.
    """

    coloured: tuple[str, ...]
    labelled: str
    names: Mapping[str, str]

    def text(self, cell: CellSummary) -> str:
        """The label of a cell: all that varies, or the value on the label's axis alone."""
        if not self.labelled:
            return cell.label
        return shorten(cell.flat.get(self.labelled, ABSENT), _LABEL_CHARACTERS)

    def index(self, cell: CellSummary) -> int:
        """The index of the cell's colour and marker."""
        return list(self.names).index(series_name(cell, self.coloured))

    def about(self) -> str:
        """What labels and colours show, as a sentence; empty if labels have all that varies."""
        if not self.labelled:
            return ""
        colours = f", colours and markers show {join_words(self.coloured)}" if self.coloured else ""
        return f"Labels show {self.labelled}{colours}."

    def handles(self, shown: Iterable[CellSummary]) -> list[Line2D]:
        """The legend entries of the colours and markers of these cells."""
        if not (self.labelled and self.coloured):
            return []
        found = {series_name(cell, self.coloured) for cell in shown}
        return [
            legend_entry(name, MARKERS[index % len(MARKERS)], **series_style(index))
            for index, (key, name) in enumerate(self.names.items())
            if key in found
        ]

    def label_points(
        self, panel: Axes, points: Sequence[tuple[CellSummary, float, float]], *, must: bool
    ) -> bool:
        """Label the cells' points (cell, x, y); call this last, as it needs the final layout.

        Returns False, with no label drawn, if too many of the labels would not be beside their own
        point alone, except if they `must` be drawn: then they lie where they can, with leaders.
        """
        labels = [Label(x, y, self.text(cell), _radius(cell)) for cell, x, y in points]
        places = places_of(panel, labels, thorough=must)
        found = [place for place in places if place is not None]
        unclear = sum(not place.clear for place in found)
        if not must and (len(found) < len(places) or unclear > _UNCLEAR):
            return False
        draw_labels(panel, labels, places)
        return True


def point_codings(
    cells: Sequence[CellSummary], axes: Sequence[str], along: str | None
) -> tuple[PointCoding, PointCoding]:
    """The coding whose labels have all that varies, and one with short labels for many cells.

    `cells` are all that were measured, also those that the plot does not show.

    Short labels show the numeric axis `along`, or the axis with the most values if it is None: then
    the fewest colours are needed.
    """

    def values(axis: str) -> int:
        return len({cell.flat.get(axis) for cell in cells})

    labelled = along or max(axes, key=values, default="")
    coloured = tuple(axis for axis in axes if axis != labelled)
    short = PointCoding(coloured, labelled, series_names(cells, coloured))
    return replace(short, labelled=""), short


def _radius(cell: CellSummary) -> float:
    """The radius of all that is drawn around a point."""
    return _WIDE_RADIUS if cell.disqualified or cell.flags else _RADIUS
