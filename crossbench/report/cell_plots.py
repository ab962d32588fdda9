"""A cell's plots: latency distribution, the run over time, throughput against latency, stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

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
    MARKERS,
    PALETTE,
    figure,
    legend_below,
    logarithmic,
    save,
    thousands,
)
from crossbench.report.tables import percentile_text
from crossbench.types import RequestRecord
from crossbench.wording import counted, number, percent

_LEAST_WINDOWS = 3  # fewer do not show how throughput and latency are related
_MANY_POINTS = 2000  # above this, the SVG contains the points as a bitmap


def cell_plots(
    records: Sequence[RequestRecord],
    folder: Path,
    unit: str,
    steps: Sequence[Step] = (),
    *,
    has_schedule: bool = False,
) -> dict[str, Draw]:
    """Plots by title; drawing them writes into `folder`. Empty if no request succeeded.

    `unit` is the unit of work that throughput counts: pairs or texts. `steps` are those of a ramp.
    With `has_schedule`, requests were due at times that did not depend on the replies.
    """
    good = [record for record in records if record.ok]
    if not good:
        return {}
    plots: dict[str, Draw] = {"Distribution of latency": partial(latency_cdf, good, folder)}
    if has_schedule:
        plots["Requests due and answered"] = partial(due_and_answered, records, folder, steps)
    plots |= {
        "Throughput and latency over time": partial(over_time, records, folder, unit, steps),
        "Throughput against latency": partial(throughput_latency, records, folder, unit),
    }
    if all(record.has_stages for record in good):
        plots["Where the time goes"] = partial(stages, good, folder)
    return plots


def latency_cdf(good: Sequence[RequestRecord], folder: Path) -> Path:
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
        legend_below(made, axes.get_legend_handles_labels()[0])
        return save(made, folder, "latency_cdf")


def over_time(
    records: Sequence[RequestRecord], folder: Path, unit: str, steps: Sequence[Step] = ()
) -> Path:
    """Plot throughput, p50 and p95 of every time window, and where a ramp's steps begin."""
    cut = windows(records)
    start = min(record.sent_s for record in records)
    edges = [0.0, *(end - start for end in cut.time_s)]
    one = len(cut) == 1
    step = "one window, the whole run" if one else f"one step is a window of {cut.length_s:.2g} s"
    with figure(4.4) as made:
        top, bottom = made.subplots(2, 1, sharex=True)
        top.stairs(cut.pairs_per_s, edges, baseline=None, color=PALETTE[0], linewidth=1.6)
        top.set(ylabel=throughput(unit).label)
        for name, series, colour, line in (
            ("p95", cut.p95_ms, PALETTE[1], "--"), ("p50", cut.p50_ms, PALETTE[2], "-"),
        ):  # fmt: skip
            heights = [np.nan if value is None else value for value in series]
            bottom.stairs(heights, edges, baseline=None, color=colour, linewidth=1.6,
                          linestyle=line, label=name)  # fmt: skip
        bottom.set(ylabel="latency (ms)", xlabel=f"time since the first request (s); {step}")
        for axes, series in ((top, cut.pairs_per_s), (bottom, cut.p95_ms)):
            axes.set_ylim(0, max((value for value in series if value), default=1 / 1.1) * 1.1)
            thousands(axes.yaxis)
        bottom.set_xlim(0, edges[-1])
        _mark_steps((top, bottom), steps, start)
        legend_below(made, bottom.get_legend_handles_labels()[0])
        return save(made, folder, "over_time")


def due_and_answered(
    records: Sequence[RequestRecord], folder: Path, steps: Sequence[Step] = ()
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
        for name, times, colour, line in (
            ("due", due, PALETTE[1], "--"), (ended, answered, PALETTE[0], "-"),
        ):  # fmt: skip
            at = np.concatenate(([0.0], times, [end]))
            top.step(at, np.concatenate(([0], counts, counts[-1:])), where="post", color=colour,
                     linestyle=line, label=name)  # fmt: skip
        top.set(ylabel="requests so far", ylim=(0, len(records) * 1.05), xlim=(0, end))
        for bottom in panels[1:]:
            _latency_when_due(bottom, records, start)
        panels[-1].set(xlabel="time since the first request was due (s)")
        for axes in panels:
            thousands(axes.yaxis)
        _mark_steps(panels, steps, start)
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
    """Draw a line where each step begins, with its value; the first label has the key too."""
    _, end = panels[0].get_xlim()
    for place, step in enumerate(steps):
        at = max(0.0, step.start_s - start_s)
        if at >= end:
            return
        for panel in panels:
            if place:
                panel.axvline(at, color=GREY, linewidth=1, linestyle=":")
        text = step.label.partition("=")[2] if place else step.label
        panels[0].annotate(
            text, (at, 1), (2, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8.5, color=GREY,
        )  # fmt: skip


def throughput_latency(records: Sequence[RequestRecord], folder: Path, unit: str) -> Path:
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
            title=counted(len(good), "request"),
            xlabel="latency (ms)",
            ylabel=f"{unit} / latency of the request ({unit}/s)",
        )
        for right in panels[1:]:
            right.scatter(
                [p50 for p50, _ in pairs], [rate for _, rate in pairs], s=24, color=PALETTE[1]
            )
            right.set(
                title=f"{counted(len(pairs), 'window')} of {cut.length_s:.2g} s",
                xlabel="median latency in the window (ms)",
                ylabel=throughput(unit).label,
            )
        for axes in panels:
            axes.margins(0.08)
            axes.locator_params(axis="x", nbins=5)
            thousands(axes.yaxis)
        return save(made, folder, "throughput_latency")


def stages(good: Sequence[RequestRecord], folder: Path) -> Path:
    """Plot mean and p95 of each stage; the means add up to the mean service time."""
    times = stage_ms(good)
    means = [float(times[name].mean()) for name in STAGES]
    total = sum(means)
    tails = [percentile(times[name], 95) for name in STAGES]
    right_end = max(*means, *tails, 1e-9)
    with figure(2.9) as made:
        axes = made.subplots()
        rows = np.arange(len(STAGES))
        axes.barh(rows, means, height=0.55, color=PALETTE[0], label="mean")
        axes.plot(tails, rows, "D", color=PALETTE[1], markersize=6, label="p95", linestyle="none")
        for row, mean, tail in zip(rows, means, tails, strict=True):
            axes.annotate(
                f"mean {number(mean)} ms{_share(mean, total)}", (max(mean, tail), row), (9, 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
        axes.set_yticks(rows, STAGES)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="time per request (ms)", xlim=(min(0, *means), right_end * 1.55))
        legend_below(made, sorted(axes.get_legend_handles_labels()[0], key=lambda h: h.get_label()))
        return save(made, folder, "stages")


def _share(part: float, total: float) -> str:
    if total <= 0:
        return ""
    share = part / total
    return f" ({'under 1 %' if 0 < share < 0.005 else percent(share)} of the total)"


def _spread_axis(axes: Axes, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    """Use a logarithmic latency axis if a long tail would compress the rest of the curve."""
    low, median, high = float(values[0]), float(np.median(values)), float(values[-1])
    if low > 0 and high > 8 * median:
        logarithmic(axes)
    elif high > low:
        axes.margins(x=0.04)
