"""Plots of sweeps with 2, 7, 13 and 24 cells: labels, numbers at bars, ticks and titles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from crossbench.report.axes import numeric_axis, varying
from crossbench.report.axis_plot import set_ticks
from crossbench.report.cell_plots import cell_plots
from crossbench.report.cells import Run
from crossbench.report.frontier import frontier_figure
from crossbench.report.label_places import FARTHEST, LEADER_FROM
from crossbench.report.labels import Label, draw_labels, places_of
from crossbench.report.series import UNKNOWN, Measured
from crossbench.report.style import figure, headline, number_bars, settle
from crossbench.report.summaries import summarise_cells
from crossbench.report.sweep_plots import sweep_plots
from tests.helpers.reports import CHANGES, requests, run

BATCHES = [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 96]
BACKENDS = ("pytorch", "packed", "onnx", "openvino")
LARGEST_RADIUS_PT = 8.0  # of a marker
RADIUS_PT = 3.0  # the smallest part of a marker that a label must not cover


def one_line(count: int) -> list[Run]:
    """Cells that differ in `batch`; many have similar values."""
    batches = [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 48, 64, 96, *range(100, 111)][:count]
    return [run(400 * n / (n + 6), 20 + 3 * n, batch=n, backend="packed", n=120) for n in batches]


def grid(count: int) -> list[Run]:
    """Cells that differ in backend, precision and batch; those of int8 change the ranking."""
    cells = itertools.product(BACKENDS, ("fp32", "int8"), (8, 32, 96))
    return [
        run(
            (300 + 120 * BACKENDS.index(backend)) * n / (n + 7) * (1.6 if quant == "int8" else 1),
            12 + 3 * n / (1 + BACKENDS.index(backend)),
            backend=backend, quant=quant, batch=n, n=120,
            **(CHANGES if quant == "int8" else {}),
        )
        for backend, quant, n in itertools.islice(cells, count)
    ]  # fmt: skip


def crowd(count: int) -> list[Run]:
    """Cells without a numeric axis that lie close together, except one."""
    names = [f"{name}-{kind}" for name in BACKENDS for kind in ("a", "b", "c", "d", "e", "f")]
    return [
        run(400 + 3 * index, 50 + 0.6 * (index * 7 % 24), backend=name, n=120)
        if index
        else run(900, 150, backend=name, n=120)
        for index, name in enumerate(names[:count])
    ]


def cells_of(runs: Sequence[Run]) -> tuple[list[Measured], list[str], str | None]:
    cells, axes = summarise_cells(runs), varying([run.result.config for run in runs])
    measured = [(cell, cell.throughput or UNKNOWN, cell.p95 or UNKNOWN) for cell in cells]
    return measured, axes, numeric_axis(axes, [cell.flat for cell in cells])


def extent(text: Text) -> Bbox:
    """The box of the text alone, without the leader of an annotation, in pixels."""
    text.get_window_extent()  # an annotation finds its place
    return Text.get_window_extent(text)


def check_labels(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Check that no label overlaps another, a marker or the border, and each is near its point."""
    made = axes.get_figure(root=True)
    assert made is not None
    scale, frame = made.dpi / 72, axes.get_window_extent()
    labels = [text for text in axes.texts if isinstance(text, Annotation)]
    marks = axes.transData.transform(points)
    boxes = [extent(label) for label in labels]
    for index, (label, box) in enumerate(zip(labels, boxes, strict=True)):
        assert not any(box.overlaps(other) for other in boxes[:index]), label.get_text()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1, label.get_text()
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1, label.get_text()
        around = box.padded(RADIUS_PT * scale)
        assert not any(around.contains(x, y) for x, y in marks), label.get_text()
        x, y = axes.transData.transform(label.xy)
        distance = math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
        assert distance < (FARTHEST + LARGEST_RADIUS_PT) * scale, label.get_text()
        if distance > (LEADER_FROM + LARGEST_RADIUS_PT) * scale:
            assert label.arrow_patch is not None, label.get_text()


@pytest.mark.parametrize("count", [2, 7, 13, 24])
@pytest.mark.parametrize("make", [one_line, grid, crowd])
def test_each_point_of_the_frontier_is_labelled_clearly(
    make: Callable[[int], list[Run]], count: int
) -> None:
    measured, axes, along = cells_of(make(count))
    with frontier_figure(measured, axes, along) as made:
        (panel,) = made.axes
        check_labels(panel, [(p95.value, rate.value) for _, rate, p95 in measured])
        said = [text.get_text() for text in panel.texts]
        assert len(said) == count
        legend = (
            {text.get_text() for text in made.legends[0].get_texts()} if made.legends else set()
        )
    for (cell, *_), label in zip(measured, said, strict=True):
        values = {cell.flat[axis] for axis in axes}
        shown = set(label.replace("=", " ").split())
        rest = " ".join(cell.flat[axis] for axis in axes if cell.flat[axis] not in shown)
        assert values <= shown or rest in legend, (label, values)


def test_labels_of_any_points_are_drawn_without_overlaps() -> None:
    points = [(float(x), float(y)) for x, y in np.random.default_rng(4).uniform(0, 1, (40, 2))]
    with figure(4.0) as made:
        axes = made.subplots()
        for x, y in points:
            axes.plot(x, y, "o")
        labels = [Label(x, y, "a label of some length", 4.5) for x, y in points]
        places = places_of(axes, labels, thorough=True)
        draw_labels(axes, labels, places)
        check_labels(axes, points)
        assert len(axes.texts) == sum(place is not None for place in places) > 15


def test_points_at_one_place_have_labels_with_leaders() -> None:
    with figure(4.0) as made:
        axes = made.subplots()
        axes.plot([0, 1, 1, 1, 2], [0, 1, 1, 1, 2], "o", linestyle="none")
        labels = [Label(1.0, 1.0, f"label {index}", 4.5) for index in range(12)]
        places = places_of(axes, labels, thorough=True)
        draw_labels(axes, labels, places)
        check_labels(axes, [(1, 1)])
    assert len(axes.texts) == 12
    assert not any(place.clear for place in places if place)


def test_a_value_stands_behind_the_end_of_its_own_bar() -> None:
    ends, texts = [109.0, 0.2, 40.0], ["109 ms (80 % of the mean)", "0.200 ms", "~40.0 ms (n=12)"]
    with figure(2.0) as made:
        axes = made.subplots()
        axes.barh([0, 1, 2], ends)
        number_bars(axes, [0, 1, 2], ends, texts)
        for row, (end, text) in enumerate(zip(ends, axes.texts, strict=True)):
            box, (x, y) = extent(text), axes.transData.transform((end, row))
            assert x < box.x0 < x + 8 * made.dpi / 72
            assert box.y0 < y < box.y1
            assert box.x1 < axes.get_window_extent().x1 + 1


def test_a_stage_has_a_bar_for_its_mean_and_one_for_its_p95(tmp_path: Path) -> None:
    records = requests(400, 30.0, 8, 1, 200, 0)
    cell_plots(records, tmp_path, "pairs", name="here")["Where the time of a request goes"]()
    svg = (tmp_path / "stages.svg").read_text()
    inferred = [record.infer_ms for record in records]
    assert f"<!-- {np.mean(inferred):.1f} ms (" in svg
    assert f"<!-- {np.percentile(inferred, 95):.1f} ms -->" in svg
    assert "<!-- here: mean and p95 of each stage, 200 requests -->" in svg


@pytest.mark.parametrize(("make", "count"), [(one_line, 13), (grid, 24), (crowd, 7)])
def test_titles_and_axes_say_what_the_plots_of_a_sweep_show(
    make: Callable[[int], list[Run]], count: int, tmp_path: Path
) -> None:
    measured, axes, _ = cells_of(make(count))
    plots = sweep_plots([cell for cell, *_ in measured], axes, tmp_path)
    assert len(plots) == 2
    for draw in plots.values():
        svg = draw().with_suffix(".svg").read_text()
        assert f"{count} cells -->" in svg
        assert "<!-- Throughput " in svg
        assert "<!-- throughput (pairs/s)" in svg
        assert "<!-- p95 latency (ms)" in svg


def test_the_ticks_of_many_batch_sizes_do_not_overlap() -> None:
    with figure(3.0) as made:
        for panel, values in zip(
            made.subplots(1, 2), (BATCHES, [1, 2, 3, *range(90, 97)]), strict=True
        ):
            panel.plot(values, values)
            set_ticks(panel, values)
            settle(made)
            texts = panel.get_xticklabels()
            shown = [text.get_position()[0] for text in texts]
            assert [shown[0], shown[-1]] == [values[0], values[-1]]
            assert len(texts) > 2
            boxes = [text.get_window_extent() for text in texts]
            assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("longest", [850, 853, 859, 865, 950])
def test_the_border_cuts_no_tick_of_bars(longest: float) -> None:
    with figure(3.0) as made:
        axes = made.subplots()
        axes.barh([0, 1], [longest, 10])
        number_bars(axes, [0, 1], [longest, 10], ["~854 ms (n=6)", "10"])
        made.draw_without_rendering()
        right = axes.get_xlim()[1]
        shown = [tick for tick in axes.xaxis.get_major_ticks() if tick.get_loc() <= right]
        assert len(shown) > 2
        assert max(tick.label1.get_window_extent().x1 for tick in shown) <= made.bbox.x1


def test_a_long_title_has_several_lines_above_the_axes() -> None:
    with figure(3.0) as made:
        axes = made.subplots()
        headline(made, "a long title " * 12, "a detail " * 30)
        settle(made)
        boxes = [text.get_window_extent() for text in made.texts]
        assert len(boxes) == 5
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
        assert min(box.y0 for box in boxes) > axes.get_tightbbox().y1
        assert max(box.x1 for box in boxes) < made.bbox.x1
