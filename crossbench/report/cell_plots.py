"""A cell's plots: latency distribution, the run over time, throughput against latency, stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossbench.measure.catalogue import STAGES, throughput
from crossbench.measure.statistics import (
    percentile,
    request_throughput,
    stage_ms,
    windows,
)
from crossbench.measure.steps import Step
from crossbench.report.drawing import Draw
from crossbench.report.style import (
    GREY,
    LABEL_SIZE,
    MARKERS,
    PALETTE,
    figure,
    headline,
    legend_below,
    logarithmic,
    number_bars,
    save,
    text_sizes,
    thousands,
)
from crossbench.report.tables import percentile_text, shorten
from crossbench.types import RequestRecord
from crossbench.wording import counted, number, percent

_LEAST_WINDOWS = 3  # fewer do not show how throughput and latency are related
_BAR_HEIGHT = 0.36
_NAME_CHARACTERS = 70
_AXIS_PT = 470.0  # the least length of an axis as wide as the figure, in points
_STEP_GAP = 4.0  # between the labels of two steps, in points
_CDF = "Distribution of latency"
_DUE = "Requests due and answered"
_OVER_TIME = "Throughput and latency over time"
_RELATION = "Throughput against latency"
_STAGES = "Where the time of a request goes"
_MANY_POINTS = 2000  # above this, the SVG contains the points as a bitmap


def cell_plots(
    records: Sequence[RequestRecord],
    folder: Path,
    unit: str,
    steps: Sequence[Step] = (),
    *,
    name: str,
    has_schedule: bool = False,
) -> dict[str, Draw]:
    """Plots by title; drawing them writes into `folder`. Empty if no request succeeded.

    `unit` is the unit of work that throughput counts: pairs or texts. `steps` are those of a ramp.
    `name` is the cell's, for the plots' second line, where a long one is shortened. With
    `has_schedule`, requests were due at times that did not depend on the replies.
    """
    good = [record for record in records if record.ok]
    if not good:
        return {}
    name = shorten(name, _NAME_CHARACTERS)
    plots: dict[str, Draw] = {_CDF: partial(latency_cdf, good, folder, name)}
    if has_schedule:
        plots[_DUE] = partial(due_and_answered, records, folder, name, steps)
    return plots | {
        _OVER_TIME: partial(over_time, records, folder, name, unit, steps),
        _RELATION: partial(throughput_latency, records, folder, name, unit),
        _STAGES: partial(stages, good, folder, name),
    }


def latency_cdf(good: Sequence[RequestRecord], folder: Path, name: str) -> Path:
    """Plot the cumulative distribution of latency, with percentiles marked on the curve."""
    values = np.sort([record.latency_ms for record in good])
    n = len(values)
    with figure(3.8) as made:
        axes = made.subplots()
        shares = np.arange(1, n + 1) / n * 100
        axes.step(np.append(values[0], values), np.append(0, shares), where="post", color=GREY)
        for q, colour, marker in zip((50, 95, 99), PALETTE, MARKERS, strict=False):
            value = percentile(values, q)
            text = f"p{q}: {percentile_text(value, q, n, 'ms')}"
            axes.plot(value, q, marker, color=colour, label=text)
            axes.plot([value, value], [0, q], color=colour, linewidth=1, linestyle=":")
        _spread_axis(axes, values)
        axes.set(xlabel="latency (ms)", ylabel="requests answered (%)", ylim=(0, 103))
        headline(made, _CDF, f"{name}: {counted(n, 'request')}")
        legend_below(made, axes.get_legend_handles_labels()[0])
        return save(made, folder, "latency_cdf")


def over_time(
    records: Sequence[RequestRecord],
    folder: Path,
    name: str,
    unit: str,
    steps: Sequence[Step] = (),
) -> Path:
    """Plot throughput, p50 and p95 of every time window, and where a ramp's steps begin."""
    cut = windows(records)
    start = min(record.sent_s for record in records)
    edges = [0.0, *(end - start for end in cut.time_s)]
    of_length = f"{len(cut)} windows of {cut.length_s:.2g} s"
    cut_into = "one window, the whole run" if len(cut) == 1 else of_length
    with figure(4.4) as made:
        top, bottom = made.subplots(2, 1, sharex=True)
        top.stairs(cut.pairs_per_s, edges, baseline=None, color=PALETTE[0], linewidth=1.6)
        top.set(ylabel=throughput(unit).label)
        for label, series, colour, line in (
            ("p95", cut.p95_ms, PALETTE[1], "--"), ("p50", cut.p50_ms, PALETTE[2], "-"),
        ):  # fmt: skip
            heights = [np.nan if value is None else value for value in series]
            bottom.stairs(heights, edges, baseline=None, color=colour, linewidth=1.6,
                          linestyle=line, label=label)  # fmt: skip
        bottom.set(ylabel="latency (ms)", xlabel="time since the first request (s)")
        for axes, series in ((top, cut.pairs_per_s), (bottom, cut.p95_ms)):
            axes.set_ylim(0, max((value for value in series if value), default=1 / 1.1) * 1.1)
            thousands(axes.yaxis)
        bottom.set_xlim(0, edges[-1])
        _mark_steps((top, bottom), steps, start)
        headline(made, _OVER_TIME, f"{name}: {cut_into}")
        legend_below(made, bottom.get_legend_handles_labels()[0])
        return save(made, folder, "over_time")


def due_and_answered(
    records: Sequence[RequestRecord], folder: Path, name: str, steps: Sequence[Step] = ()
) -> Path:
    """Plot how many requests were due and answered, and each request's latency when it was due.

    The distance between the two curves is the backlog. The latencies are left out if all requests
    were due at once.
    """
    start = min(record.due_s for record in records)
    due = np.sort([record.due_s - start for record in records])
    answered = np.sort([record.received_s - start for record in records])
    end, at_once = max(float(answered[-1]), 1e-3), float(due[-1]) == 0
    counts = np.arange(1, len(records) + 1)
    ended = "answered" if all(record.ok for record in records) else "answered or failed"
    with figure(3.0 if at_once else 4.6) as made:
        panels = list(made.subplots(1 if at_once else 2, 1, sharex=True, squeeze=False)[:, 0])
        top = panels[0]
        for label, times, colour, line in (
            ("due", due, PALETTE[1], "--"), (ended, answered, PALETTE[0], "-"),
        ):  # fmt: skip
            at = np.concatenate(([0.0], times, [end]))
            top.step(at, np.concatenate(([0], counts, counts[-1:])), where="post", color=colour,
                     linestyle=line, label=label)  # fmt: skip
        top.set(ylabel="requests so far", ylim=(0, len(records) * 1.05), xlim=(0, end))
        for bottom in panels[1:]:
            _latency_when_due(bottom, records, start)
        panels[-1].set(xlabel="time since the first request was due (s)")
        for axes in panels:
            thousands(axes.yaxis)
        _mark_steps(panels, steps, start)
        headline(made, _DUE, f"{name}: {counted(len(records), 'request')}")
        legend_below(made, top.get_legend_handles_labels()[0])
        return save(made, folder, "due_and_answered")


def _latency_when_due(axes: Axes, records: Sequence[RequestRecord], start_s: float) -> None:
    """Draw the latency of each successful request at the time when it was due."""
    good = [record for record in records if record.ok]
    axes.scatter(
        [record.due_s - start_s for record in good], [record.latency_ms for record in good],
        s=10, alpha=0.5, color=PALETTE[2], linewidths=0, rasterized=len(good) > _MANY_POINTS,
    )  # fmt: skip
    highest = max(record.latency_ms for record in good)
    axes.set(ylabel="latency (ms),\nplaced when due", ylim=(0, highest * 1.08))


def _mark_steps(panels: Sequence[Axes], steps: Sequence[Step], start_s: float) -> None:
    """Draw a line where each step begins, with its value; the first label has the key too.

    A label that would touch the one before it, or leave the plot, is left out.
    """
    if not steps:
        return
    made, (_, end) = panels[0].figure, panels[0].get_xlim()
    assert isinstance(made, Figure)
    texts = [step.label.partition("=")[2] if place else step.label
             for place, step in enumerate(steps)]  # fmt: skip
    free = 0.0
    for place, (step, text) in enumerate(zip(steps, texts, strict=True)):
        at = max(0.0, step.start_s - start_s)
        if at >= end:
            return
        for panel in panels if place else ():
            panel.axvline(at, color=GREY, linewidth=1, linestyle=":")
        left = at / end * _AXIS_PT
        right = left + float(text_sizes(made, [text])[0, 0]) + _STEP_GAP
        if left < free or right > _AXIS_PT + _STEP_GAP:
            continue
        free = right
        panels[0].annotate(
            text, (at, 1), (2, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=LABEL_SIZE, color=GREY,
        )  # fmt: skip


def throughput_latency(
    records: Sequence[RequestRecord], folder: Path, name: str, unit: str
) -> Path:
    """Plot throughput against latency for requests and, if there are three, for windows."""
    good, cut = [record for record in records if record.ok], windows(records)
    pairs = [
        (p50, rate)
        for p50, rate in zip(cut.p50_ms, cut.pairs_per_s, strict=True)
        if p50 is not None
    ]
    with figure(3.5) as made:
        panels = made.subplots(1, 2 if len(pairs) >= _LEAST_WINDOWS else 1, squeeze=False)[0]
        left = panels[0]
        left.scatter(
            [record.latency_ms for record in good], request_throughput(good), s=12, alpha=0.5,
            color=PALETTE[0], linewidths=0, rasterized=len(good) > _MANY_POINTS,
        )  # fmt: skip
        left.set(
            title=f"{counted(len(good), 'request')}: one point each",
            xlabel="latency (ms)",
            ylabel=f"{unit} / latency of the request ({unit}/s)",
        )
        for right in panels[1:]:
            right.scatter(
                [p50 for p50, _ in pairs], [rate for _, rate in pairs], s=24, color=PALETTE[1]
            )
            right.set(
                title=f"{counted(len(pairs), 'window')} of {cut.length_s:.2g} s: one point each",
                xlabel="median latency in the window (ms)",
                ylabel=throughput(unit).label,
            )
        for axes in panels:
            axes.margins(0.08)
            axes.locator_params(axis="x", nbins=5)
            thousands(axes.yaxis)
        headline(made, _RELATION, name)
        return save(made, folder, "throughput_latency")


def stages(good: Sequence[RequestRecord], folder: Path, name: str) -> Path:
    """Plot mean and p95 of each stage; the means add up to the mean service time."""
    times = stage_ms(good)
    means = [float(times[stage].mean()) for stage in STAGES]
    tails = [percentile(times[stage], 95) for stage in STAGES]
    total, rows = sum(means), np.arange(len(STAGES))
    mean_texts = [f"{number(mean)} ms{_share(mean, total)}" for mean in means]
    tail_texts = [percentile_text(tail, 95, len(good), "ms") for tail in tails]
    with figure(3.6) as made:
        axes = made.subplots()
        above, below = rows - _BAR_HEIGHT / 2, rows + _BAR_HEIGHT / 2
        axes.barh(above, means, height=_BAR_HEIGHT, color=PALETTE[0], label="mean")
        axes.barh(below, tails, height=_BAR_HEIGHT, color=PALETTE[1], label="p95")
        axes.set_yticks(rows, STAGES)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="time per request (ms)")
        headline(
            made, _STAGES, f"{name}: mean and p95 of each stage, {counted(len(good), 'request')}"
        )
        legend_below(made, axes.get_legend_handles_labels()[0])
        number_bars(axes, [*above, *below], [*means, *tails], [*mean_texts, *tail_texts])
        return save(made, folder, "stages")


def _share(part: float, total: float) -> str:
    if total <= 0:
        return ""
    share = part / total
    return f" ({'under 1 %' if 0 < share < 0.005 else percent(share)} of the mean)"


def _spread_axis(axes: Axes, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    """Use a logarithmic latency axis if a long tail would compress the rest of the curve."""
    low, median, high = float(values[0]), float(np.median(values)), float(values[-1])
    if low > 0 and high > 8 * median:
        logarithmic(axes)
    elif high > low:
        axes.margins(x=0.04)
