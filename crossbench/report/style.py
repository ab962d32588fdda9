"""Style, titles, legends and saving of plots; without pyplot and without global state."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from crossbench.system.files import atomic_write

# Okabe and Ito's palette, which is distinguishable with every common colour blindness. Yellow is
# left out, as it is too pale for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "p", "<", ">", "h")
LINES = ("-", "--", ":", "-.")
GREY = "#595959"
WIDTH_IN = 7.5
_DPI = 150
_TITLE_CHARACTERS, _DETAIL_CHARACTERS = 85, 115  # those of a line that fit the width
_TITLE_SIZE, _DETAIL_SIZE = 11.0, 9.0  # in points
LABEL_SIZE = 8.5  # of texts at points and bars, in points
_GAP_AT_BAR = 4  # between a bar and its text, in points
LEGEND_ROW_IN = 0.19
_LINE_HEIGHT = 1.3  # of the font size
_EDGE = 5.0  # between titles and the edges of the figure, in points

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so plots look the same everywhere
    "font.size": 9.5,
    "axes.titlesize": 9.5,
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


def headline(made: Figure, title: str, detail: str = "") -> None:
    """Write the title of the whole figure at its top left, and `detail` below it in grey."""
    height_pt, taken_pt = 72 * made.get_figheight(), _EDGE
    for text, characters, size, weight, colour in (
        (title, _TITLE_CHARACTERS, _TITLE_SIZE, "bold", "black"),
        (detail, _DETAIL_CHARACTERS, _DETAIL_SIZE, "normal", GREY),
    ):
        for line in textwrap.wrap(text, characters):
            made.text(
                _EDGE / 72 / made.get_figwidth(), 1 - taken_pt / height_pt, line, va="top",
                fontsize=size, fontweight=weight, color=colour, in_layout=False,
            )  # fmt: skip
            taken_pt += size * _LINE_HEIGHT
    engine = made.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, 0, 1, 1 - taken_pt / height_pt))  # the axes' part of the figure


def number_bars(
    axes: Axes, rows: Iterable[float], ends: Sequence[float], texts: Sequence[str]
) -> None:
    """Write a text behind the end of each horizontal bar, and make room for the longest one.

    Call this last, as it computes the layout.
    """
    made = axes.get_figure(root=True)
    assert made is not None
    settle(made)
    width_pt = axes.get_window_extent().width * 72 / made.dpi
    # A bar and its text fit if they take at most all of the width between `left` and `right`
    shares = (text_sizes(made, texts)[:, 0] + _GAP_AT_BAR + 3) / width_pt
    left = min(0.0, *ends)
    lengths = [(end - left) / (1 - share) for end, share in zip(ends, shares, strict=True)]
    axes.set_xlim(left, left + (max(lengths) or 1.0))
    for row, end, text in zip(rows, ends, texts, strict=True):
        axes.annotate(text, (end, row), (_GAP_AT_BAR, 0), va="center",
                      textcoords="offset points", fontsize=LABEL_SIZE)  # fmt: skip
    _drop_cut_tick(axes, made)


def _drop_cut_tick(axes: Axes, made: Figure) -> None:
    """Remove the last tick of the x axis if the border of the picture would cut its label."""
    made.draw_without_rendering()
    _, right = axes.get_xlim()
    ticks = [tick for tick in axes.xaxis.get_major_ticks() if tick.get_loc() <= right]
    if ticks and ticks[-1].label1.get_window_extent().x1 > made.bbox.x1:
        axes.set_xticks([tick.get_loc() for tick in ticks[:-1]])
        axes.set_xlim(right=right)


def text_sizes(made: Figure, texts: Sequence[str]) -> NDArray[np.float64]:
    """The widths and heights of labels with these texts in points, (n, 2)."""
    renderer = made.canvas.get_renderer()  # type: ignore[attr-defined]
    extents = [
        Text(0, 0, text, fontsize=LABEL_SIZE, figure=made).get_window_extent(renderer)
        for text in texts
    ]
    return np.array([(box.width, box.height) for box in extents]) * 72 / made.dpi


def settle(made: Figure) -> None:
    """Compute the layout once, as matplotlib would otherwise repeat it at every drawing."""
    if (engine := made.get_layout_engine()) is not None:
        engine.execute(made)
    made.set_layout_engine("none")


def legend_columns(texts: Sequence[str]) -> int:
    """The number of legend columns that fit the figure's width, given the longest text."""
    return max(1, min(len(texts), 5, 100 // (max(map(len, texts), default=1) + 6)))


def legend_rows(handles: Sequence[Artist]) -> int:
    """The number of rows that a legend of these entries has."""
    texts = [str(handle.get_label()) for handle in handles]
    return -(-len(texts) // legend_columns(texts))


def legend_below(made: Figure, handles: Sequence[Artist]) -> None:
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
