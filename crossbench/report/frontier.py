"""The frontier plot of a sweep: throughput against p95 latency, one point per cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.advice.candidates import Candidates, select_candidates
from crossbench.report.cells import CellSummary, pareto
from crossbench.report.series import (
    CROSS_STYLE,
    LEGEND_ROW_IN,
    Measured,
    disqualified_entry,
    draw_flags,
    error_bars,
    flag_entries,
    legend_entry,
    rate_label,
    series_name,
    series_style,
)
from crossbench.report.style import (
    GREY,
    MARKERS,
    figure,
    legend_below,
    legend_rows,
    logarithmic,
    place_labels,
    save,
)
from crossbench.report.tables import shorten
from crossbench.settings.flatten import value_text

_PALE = 0.35
_LABEL_ALL = 12  # up to this many cells, each point has a label


def frontier_plot(
    measured: Sequence[Measured],
    along: str | None,
    rest: Sequence[str],
    names: Mapping[str, str],
    folder: Path,
) -> Path:
    """Plot throughput against p95; a line joins the Pareto-optimal cells.

    All of them have a p95. Excluded cells (see `select_candidates`), and those whose p95 has too
    few requests, are pale and not on the frontier; those that change the ranking are crossed out.
    Error bars are 95 % intervals.
    """
    candidates = select_candidates([cell for cell, *_ in measured])
    fit = [index for index, (cell, *_) in enumerate(measured) if _is_ranked(cell, candidates)]
    front = [
        fit[place] for place in pareto([(measured[i][1].value, measured[i][2].value) for i in fit])
    ]
    coding = _Coding.of(measured, along, rest, names)
    handles = _handles(measured, candidates, coding, joined=len(front) > 1)
    texts = [str(entry.get_label()) for entry in handles]
    with figure(4.0 + LEGEND_ROW_IN * legend_rows(texts)) as made:
        axes = made.subplots()
        axes.plot(
            [measured[i][2].value for i in front], [measured[i][1].value for i in front],
            color=GREY, linewidth=1.2, zorder=1,
        )  # fmt: skip
        for item in measured:
            _draw_cell(axes, item, candidates, coding)
        axes.margins(0.16)
        axes.set(
            xlabel=f"{P95_LATENCY.label}{P95_LATENCY.better.rightwards}",
            ylabel=f"{rate_label(measured)}{PAIRS_PER_S.better.upwards}",
        )
        _set_scales(axes, measured)
        legend_below(made, handles)
        excluded = [index for index in range(len(measured)) if index not in fit]
        named = dict.fromkeys((*front, *excluded, *(fit if len(measured) <= _LABEL_ALL else ())))
        place_labels(
            axes,
            [
                (p95.value, rate.value, _label_texts(cell, along))
                for cell, rate, p95 in (measured[i] for i in named)
            ],
        )
        return save(made, folder, "frontier")


@dataclass(frozen=True, slots=True)
class _Coding:
    """The meaning of a point's colour and marker.

    The colour shows the series. The marker shows the value on the axis `along` if `values` is not
    empty, else the series too.
    """

    names: Mapping[str, str]
    along: str | None
    rest: Sequence[str]
    values: Sequence[float]

    @classmethod
    def of(
        cls,
        measured: Sequence[Measured],
        along: str | None,
        rest: Sequence[str],
        names: Mapping[str, str],
    ) -> _Coding:
        values = sorted({float(cell.flat[along]) for cell, *_ in measured}) if along else []
        return cls(names, along, rest, values if 1 < len(values) <= len(MARKERS) else [])

    def index(self, cell: CellSummary) -> int:
        """The index of the cell's series."""
        return list(self.names).index(series_name(cell, self.rest))

    def marker(self, cell: CellSummary) -> str:
        if self.values and self.along:
            return MARKERS[self.values.index(float(cell.flat[self.along]))]
        return MARKERS[self.index(cell) % len(MARKERS)]

    def handles(self) -> list[Line2D]:
        """The legend entries for series and values."""
        made: list[Line2D] = []
        for index, name in enumerate(self.names.values()):
            marker = "o" if self.values else MARKERS[index % len(MARKERS)]
            if name or not self.values:
                made.append(legend_entry(name or "all cells", marker, **series_style(index)))
        return made + [
            legend_entry(f"{self.along}={value:g}", MARKERS[k], color=GREY, markerfacecolor=GREY)
            for k, value in enumerate(self.values)
        ]


def _handles(
    measured: Sequence[Measured], candidates: Candidates, coding: _Coding, *, joined: bool
) -> list[Line2D]:
    """The legend entries for what the plot shows."""
    handles = coding.handles()
    if joined:
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, label="frontier"))
    if any(cell.disqualified for cell, *_ in measured):
        handles.append(disqualified_entry())
    pale = [cell for cell, *_ in measured
            if not _is_ranked(cell, candidates) and not cell.disqualified]  # fmt: skip
    if pale:
        few = all(candidates.contains(cell) for cell in pale)
        text = "p95 of fewer than 100 requests" if few else "excluded from the comparison"
        handles.append(legend_entry(f"pale: {text}", "o", color=GREY, alpha=_PALE))
    return handles + flag_entries(cell for cell, *_ in measured)


def _is_ranked(cell: CellSummary, candidates: Candidates) -> bool:
    return cell.ranked_p95 is not None and candidates.contains(cell)


def _draw_cell(axes: Axes, item: Measured, candidates: Candidates, coding: _Coding) -> None:
    cell, rate, p95 = item
    draw_flags(axes, cell, p95.value, rate.value)
    style, marker = series_style(coding.index(cell)), coding.marker(cell)
    if cell.disqualified:
        hollow = {**style, "markerfacecolor": "white"}
        axes.plot(p95.value, rate.value, marker, markersize=11, **hollow)
        axes.plot(p95.value, rate.value, **CROSS_STYLE)
        return
    axes.errorbar(
        p95.value, rate.value, xerr=error_bars([p95]), yerr=error_bars([rate]), marker=marker,
        markersize=7, elinewidth=1, alpha=1 if _is_ranked(cell, candidates) else _PALE, **style,
    )  # fmt: skip


def _set_scales(axes: Axes, measured: Sequence[Measured]) -> None:
    """Choose the scales of both axes.

    Latency is logarithmic if it spans a factor of 20. Throughput starts at zero if it spans a
    factor of two.
    """
    latencies = [p95.value for _, _, p95 in measured]
    if min(latencies) > 0 and max(latencies) > 20 * min(latencies):
        logarithmic(axes)
    elif axes.get_xlim()[0] < 0:
        axes.set_xlim(left=0)
    rates = [rate.value for _, rate, _ in measured]
    if min(rates) < 0.5 * max(rates):
        axes.set_ylim(0, max(rates) * 1.18)


def _label_texts(cell: CellSummary, along: str | None) -> list[str]:
    """The label of a point, and a shorter one for where it does not fit."""
    return [shorten(cell.label, 30), *([value_text(along, cell.flat)] if along else [])]
