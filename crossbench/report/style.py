"""Style, labels and saving of plots; without pyplot and without global state."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from crossbench.system.files import atomic_write

# Okabe and Ito's palette, which is distinguishable with every common colour blindness. Yellow is
# left out, as it is too pale for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "<", ">", "h")
LINES = ("-", "--", ":", "-.")
GREY = "#595959"
WIDTH_IN = 7.5
_DPI = 150

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so plots look the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e0e0e0",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "crossbench",
    "text.parse_math": False,  # dollar signs in names are not formulas
}


def _defaults() -> dict[Any, Any]:
    """matplotlib's default settings without the backend, as we choose the canvas ourselves."""
    own = mpl.rcParamsDefault
    return {key: own[key] for key in own if not key.startswith("backend")}


@contextmanager
def figure(height_in: float, width_in: float = WIDTH_IN) -> Iterator[Figure]:
    """A figure in our style; the style applies while the context is open."""
    # The context restores the settings of a notebook or a matplotlibrc
    with mpl.rc_context():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)
            mpl.rcParams.update(_defaults())
        mpl.rcParams.update(_STYLE)
        made = Figure(figsize=(width_in, height_in), dpi=_DPI)
        FigureCanvasAgg(made)
        yield made


def save(made: Figure, folder: Path, name: str) -> Path:
    """Write `name`.png and `name`.svg into `folder`, atomically; return the PNG's path.

    `savefig` is avoided because it draws a figure twice for each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settle(made)
    vector, picture = folder / f"{name}.svg", folder / f"{name}.png"
    try:
        svg: Any = FigureCanvasSVG(made)
        with atomic_write(vector) as partial:
            svg.print_svg(partial, metadata={"Date": None})
        made.dpi = _DPI  # writing the SVG has changed it
        png: Any = FigureCanvasAgg(made)
        with atomic_write(picture) as partial:
            png.print_png(partial)
    except OSError:  # on a full disk, removing half of a plot leaves room for the report
        vector.unlink(missing_ok=True)
        picture.unlink(missing_ok=True)
        raise
    return picture


def settle(made: Figure) -> None:
    """Compute the layout once, as matplotlib would otherwise repeat it at every drawing."""
    if (engine := made.get_layout_engine()) is not None:
        engine.execute(made)
    made.set_layout_engine("none")


def legend_columns(texts: Sequence[str]) -> int:
    """The number of legend columns that fit the figure's width, given the longest text."""
    return max(1, min(len(texts), 5, 100 // (max(map(len, texts), default=1) + 6)))


def legend_rows(texts: Sequence[str]) -> int:
    return -(-len(texts) // legend_columns(texts))


def legend_below(made: Figure, handles: Sequence[Any]) -> None:
    """Add one legend below all panels, with as many columns as fit."""
    texts = [str(handle.get_label()) for handle in handles]
    made.legend(handles, texts, loc="outside lower center", ncols=legend_columns(texts))


def logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers at 1, 2 and 5 of every decade."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def thousands(axis: Axis) -> None:
    """Write large tick values as tables do: 12,500."""
    if axis.get_view_interval()[1] >= 1e4:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def place_labels(axes: Axes, points: Sequence[tuple[float, float, Sequence[str]]]) -> list[int]:
    """Write a label beside each point without overlaps; return the indices without a label.

    Each point (x, y, texts) has its texts in order of preference; the first that fits is used. A
    label must not overlap markers, lines, the border or earlier labels. Call this last, as it needs
    the final axis limits.
    """
    made = axes.get_figure(root=True)
    assert made is not None
    settle(made)  # the layout determines where the points lie
    unit = made.dpi / 72
    taken = [*_obstacles(axes, 5 * unit)]
    frame, unplaced = axes.get_window_extent(), []
    for index, (x, y, texts) in enumerate(points):
        for text, (dx, dy) in itertools.product(texts, _OFFSETS):
            label = axes.annotate(
                text, (x, y), (dx, dy), textcoords="offset points", fontsize=8.5, zorder=5,
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
            )  # fmt: skip
            box = _extent(label, 1.5 * unit)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()
        else:
            unplaced.append(index)
    return unplaced


_OFFSETS = tuple(
    (dx * distance, dy * distance)
    for distance in (7, 12, 20)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
)


def _extent(label: Annotation, margin: float) -> Bbox:
    return label.get_window_extent().padded(margin)


def _obstacles(axes: Axes, half: float) -> Iterator[Bbox]:
    """Small boxes along every line and around every marker of `axes`, in pixels."""
    for bars in (item for item in axes.collections if isinstance(item, LineCollection)):
        for ends in bars.get_segments():
            if len(ends):
                corners = bars.get_transform().transform(ends)
                yield Bbox([corners.min(axis=0) - 1, corners.max(axis=0) + 1])
    for line in axes.get_lines():
        data = np.column_stack([np.asarray(line.get_xdata()), np.asarray(line.get_ydata())])
        pixels = line.get_transform().transform(data.astype(float))
        marked = line.get_marker() not in {"None", "", " ", None}
        reach = half * max(1.0, line.get_markersize() / 10) if marked else half / 3
        for x, y in pixels:
            yield Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)
        if line.get_linestyle() in {"None", "", " "}:
            continue
        for (x0, y0), (x1, y1) in itertools.pairwise(pixels):
            steps = max(2, int(np.hypot(x1 - x0, y1 - y0) / half))
            for part in np.linspace(0, 1, steps):
                x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
                yield Bbox.from_extents(x - half / 3, y - half / 3, x + half / 3, y + half / 3)
