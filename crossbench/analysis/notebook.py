"""Tables and plots for notebooks, from the frames of `crossbench.load_sweep` and its siblings.

Tables are pandas frames, plots are the reports' own. A frame of cells may come from a folder or
from MLflow; only the former leads to the cells' files, from which intervals are computed.
"""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from crossbench.analysis.frames import CELL_COLUMNS, records_of
from crossbench.errors import ResultError
from crossbench.measure import catalogue
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.measure.correlation import correlations
from crossbench.measure.metric import View
from crossbench.measure.queueing import queueing
from crossbench.measure.statistics import latency_range_table, windows
from crossbench.report.axes import varying
from crossbench.report.compare import Run, summarise_cells
from crossbench.report.drawing import Draw, draw
from crossbench.report.sweep_tables import summary_rows
from crossbench.results import RESULT_FILE, RunResult, Status, load_cell
from crossbench.settings.cell_config import CellConfig
from crossbench.types import Task
from crossbench.wording import number

RATE, P95 = PAIRS_PER_S.name, P95_LATENCY.name
_FIGURES = {metric.name: metric.heading for metric in catalogue.shown(View.COMPARISON)}


@dataclass(frozen=True)
class Pictures:
    """Plots as Jupyter shows them: PNG files by their titles; why others are missing, by theirs."""

    images: Mapping[str, bytes]
    missing: Mapping[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        notes = "".join(
            f"<p>Missing plot: {html.escape(title)}: {html.escape(why)}</p>"
            for title, why in self.missing.items()
        )
        return notes + "".join(
            f'<figure><img alt="{html.escape(title)}" style="max-width: 100%" '
            f'src="data:image/png;base64,{base64.b64encode(image).decode("ascii")}">'
            f"<figcaption>{html.escape(title)}</figcaption></figure>"
            for title, image in self.images.items()
        )


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """The short table of the cells: what varies, throughput, latency, memory, status.

    `*` marks the highest throughput, `≈` what cannot be told from it, `~` a percentile with fewer
    than five requests beyond it.
    """
    headers, rows, _ = summary_rows([run.result for run in runs_of(frame)], reasons=True)
    return pd.DataFrame(rows, columns=headers)


def comparison_plots(frame: pd.DataFrame) -> Pictures:
    """Throughput and p95 along what varies, and the frontier of both."""
    runs = runs_of(frame)
    axes = varying([run.result.config for run in runs])

    def plan(folder: Path) -> Mapping[str, Draw]:
        from crossbench.report.sweep_plots import sweep_plots

        return sweep_plots(summarise_cells(runs), axes, folder)

    return _pictures(plan)


def baseline_and_best(frame: pd.DataFrame, baseline: int | None = None) -> pd.DataFrame:
    """The predecessor system's first table: a baseline (a row's position; None is the first that
    finished), the cell with the highest throughput, and the latter over the former.

    Raises:
        ResultError: no cell finished, or the baseline did not.
    """
    finished, rows = _finished(frame).to_dict("records"), frame.to_dict("records")
    first, best = finished[0], max(finished, key=lambda row: row[RATE])
    if baseline is not None:
        if baseline not in range(len(rows)) or rows[baseline]["status"] != Status.FINISHED:
            raise ResultError(f"row {baseline} is no cell that finished: give baseline=ROW of one")
        first = rows[baseline]
    figures = {
        title: [number(value) for value in (first[name], best[name], best[name] / first[name])]
        for name, title in _FIGURES.items()
        if first[name] > 0 and best[name] > 0  # a missing one is not
    }
    settings = {name: [str(first[name]), str(best[name]), ""] for name in _varying_columns(frame)}
    columns = ["baseline", "best", "best / baseline"]
    return pd.DataFrame.from_dict({**settings, **figures}, orient="index", columns=columns)


def by_choice(frame: pd.DataFrame, group: str = "backend") -> pd.DataFrame:
    """The predecessor system's second table: each choice of a group (`backend`) at its highest
    throughput, with the cell's other settings, latency and memory.

    Raises:
        ResultError: no cell finished.
    """
    finished = _finished(frame)
    best = finished.loc[finished.groupby(group)[RATE].idxmax()].sort_values(RATE, ascending=False)
    settings = [name for name in _varying_columns(frame) if name != group]
    return best[[group, *settings, *_FIGURES]].rename(columns=_FIGURES).set_index(group).round(2)


def latency_ranges(requests: pd.DataFrame) -> pd.DataFrame:
    """The predecessor system's third table: throughput of single requests by range of latency, in
    pairs/s, for every cell."""
    rows = [
        {
            "cell": cell,
            "latency": row.label,
            "average (pairs/s)": row.mean_pairs_per_s,
            "min (pairs/s)": row.min_pairs_per_s,
            "max (pairs/s)": row.max_pairs_per_s,
            "requests": row.requests,
        }
        for cell, group in requests.groupby("cell")
        for row in latency_range_table(records_of(group))
    ]
    return pd.DataFrame(rows).set_index(["cell", "latency"]).round(2)


def stage_table(requests: pd.DataFrame) -> pd.DataFrame:
    """Quantiles and mean of latency, service time and the stages in ms, for every cell; of the
    requests that succeeded."""
    names = ["latency_ms", "service_ms", "tokenize_ms", "queue_ms", "infer_ms"]
    good = requests[requests["status"] == "OK"].groupby("cell")[names]
    table = {
        **{f"p{percent}": good.quantile(percent / 100) for percent in (50, 95, 99)},
        "mean": good.mean(),
        "max": good.max(),
    }
    return pd.concat(table, names=["", "cell"]).swaplevel().sort_index(level="cell").round(2)


def request_plots(requests: pd.DataFrame) -> Pictures:
    """Distribution of latency, the run over time, throughput against latency, stages: every cell's,
    or the cell's where `requests` are of one."""

    def plan(group: pd.DataFrame, folder: Path) -> Mapping[str, Draw]:
        from crossbench.report.cell_plots import cell_plots

        return cell_plots(records_of(group), folder, Task.SCORE.unit)

    images: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for cell, group in requests.groupby("cell"):
        drawn = _pictures(partial(plan, group))
        images |= {f"Cell {cell}: {title}": image for title, image in drawn.images.items()}
        missing |= {f"Cell {cell}: {title}": why for title, why in drawn.missing.items()}
    return Pictures(images, missing)


def window_series(requests: pd.DataFrame) -> pd.DataFrame:
    """Throughput (pairs/s), replies and latency (ms) of every window of every cell; `time_s` is the
    window's end."""
    parts = []
    for cell, group in requests.groupby("cell"):
        series = windows(records_of(group)).series()
        parts.append(pd.DataFrame({"cell": cell, **series}))
    return pd.concat(parts, ignore_index=True).round(2)


def correlation_table(requests: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r of throughput and latency per request and per window, and of tokens and latency,
    with 95 % intervals, for every cell."""
    rows = [
        {
            "cell": cell,
            "of": name,
            "r": found.r,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "n": found.n,
        }
        for cell, group in requests.groupby("cell")
        for name, found in correlations(records_of(group)).items()
        for interval in (found.interval(),)
    ]
    return pd.DataFrame(rows, columns=["cell", "of", "r", "low", "high", "n"]).round(3)


def queueing_table(requests: pd.DataFrame) -> pd.DataFrame:
    """Requests in flight and where they are, by Little's law, for every cell: see
    `measure.queueing.Queueing`."""
    rows = [
        {
            "cell": cell,
            "requests/s": found.requests_per_s,
            "in flight": found.in_flight,
            "waiting": found.waiting,
            "computing": found.computing,
            "waiting share": found.waiting_share,
            "variation": found.variation,
        }
        for cell, group in requests.groupby("cell")
        if (found := queueing(records_of(group))) is not None
    ]
    return pd.DataFrame(rows).set_index("cell").round(3)


def quality_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What varies, throughput, and every measure of ranking quality, the fastest cell first; cells
    without a check of their ranking have none."""
    names = [name for name in frame.columns if catalogue.family(name) == catalogue.QUALITY_FAMILY]
    kept = frame[[*_varying_columns(frame), RATE, P95, *names]]
    titles = {name: catalogue.key(name) for name in names}
    table = kept.rename(columns={**_FIGURES, **titles})
    table = table.sort_values(PAIRS_PER_S.heading, ascending=False)
    return table.round(4).reset_index(drop=True)


def quality_plots(frame: pd.DataFrame, metrics: Sequence[str]) -> Pictures:
    """Throughput against each of the `metrics` that a cell has, one point per cell; none of the
    cells having any gives no plot."""
    joined = summarise_cells(runs_of(frame))

    def plan(folder: Path) -> Mapping[str, Draw]:
        from crossbench.report.ranking_plot import quality_plot

        found: dict[str, Draw] = {}
        for name in metrics:
            if metric := catalogue.BY_NAME.get(name):
                found |= quality_plot(joined, metric, folder)
        return found

    return _pictures(plan)


def runs_of(frame: pd.DataFrame) -> list[Run]:
    """The frame's rows as the reports take them: from the cells' files where `folder` leads there,
    else from the row alone."""
    return [_run(row) for row in frame.to_dict("records")]


def _run(row: Mapping[Any, Any]) -> Run:
    folder = Path(str(row["folder"]))
    if folder.is_absolute() and (folder / RESULT_FILE).exists():
        return Run(str(row["cell"]), *load_cell(folder))
    known = {str(key): value for key, value in row.items() if not _is_missing(value)}
    no_setting = {*CELL_COLUMNS, "run_id"}
    config = {key: value for key, value in known.items() if not ("/" in key or key in no_setting)}
    result = RunResult(
        status=Status(row["status"]),
        config=CellConfig(config),
        cell_id=str(row["cell_id"]),
        error=known.get("error"),
        metrics={key: value for key, value in known.items() if "/" in key},
    )
    return Run(str(row["cell"]), result)


def _finished(frame: pd.DataFrame) -> pd.DataFrame:
    finished = frame[(frame["status"] == str(Status.FINISHED)) & frame[RATE].notna()]
    if finished.empty:
        raise ResultError("no cell finished, so there is nothing to compare: see `error`")
    return finished


def _varying_columns(frame: pd.DataFrame) -> list[str]:
    """Columns of the settings that vary; a value inside a group has its own column only where the
    group's choice does not tell it."""
    axes = varying([run.result.config for run in runs_of(frame)])
    return [axis for axis in axes if axis in frame.columns]


def _pictures(plan: Callable[[Path], Mapping[str, Draw]]) -> Pictures:
    with tempfile.TemporaryDirectory() as folder:
        plots = draw(partial(plan, Path(folder)))
        images = {title: path.read_bytes() for title, path in plots.paths.items()}
    return Pictures(images, plots.missing)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and pd.isna(value))
