"""Tables and plots for notebooks, made from the frames of `crossbench.load_sweep` and similar.

Tables are pandas data frames, and plots are those of the reports. A frame of cells may come from a
folder or from MLflow. Confidence intervals need the files in the cells' folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from crossbench.analysis.frames import CELL_COLUMNS, records_of
from crossbench.analysis.pictures import Pictures, draw_pictures
from crossbench.errors import ResultError
from crossbench.measure import catalogue
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.measure.correlation import correlations
from crossbench.measure.metric import View
from crossbench.measure.queueing import queueing
from crossbench.measure.statistics import latency_range_table, windows
from crossbench.report.axes import varying
from crossbench.report.cells import Run
from crossbench.report.drawing import Draw
from crossbench.report.ranking_queries import on_common_queries
from crossbench.report.summaries import summarise_cells
from crossbench.report.terminal import summary_rows
from crossbench.results import RESULT_FILE, RunResult, Status, load_cell
from crossbench.settings.cell_config import CellConfig
from crossbench.types import Task
from crossbench.wording import number

RATE, P95 = PAIRS_PER_S.name, P95_LATENCY.name
_FIGURES = {metric.name: metric.heading for metric in catalogue.shown(View.COMPARISON)}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """The short table of cells: settings that vary, throughput, latency, memory and status.

    `★` marks the fastest cell, `☆` each cell that may be the fastest, and `~` an unreliable
    percentile with fewer than five requests beyond it.
    """
    headers, rows, _ = summary_rows([run.result for run in runs_of(frame)], reasons=True)
    return pd.DataFrame(rows, columns=headers)


def comparison_plots(frame: pd.DataFrame) -> Pictures:
    """Plots of throughput and p95 along the axis that varies, and of the frontier of both."""
    runs = runs_of(frame)
    axes = varying([run.result.config for run in runs])

    def plan(folder: Path) -> Mapping[str, Draw]:
        from crossbench.report.sweep_plots import sweep_plots

        return sweep_plots(summarise_cells(runs), axes, folder)

    return draw_pictures(plan)


def baseline_and_best(frame: pd.DataFrame, baseline: int | None = None) -> pd.DataFrame:
    """Compare a baseline with the cell of the highest throughput (the predecessor's first table).

    `baseline` is the position of a row; None means the first finished cell.

    Raises:
        ResultError: no cell finished, or the baseline did not finish.
    """
    finished, rows = _finished(frame).to_dict("records"), frame.to_dict("records")
    first, best = finished[0], max(finished, key=lambda row: row[RATE])
    if baseline is not None:
        if baseline not in range(len(rows)) or rows[baseline]["status"] != Status.FINISHED:
            raise ResultError(
                f"row {baseline} is not a finished cell: give the row of one as baseline=ROW"
            )
        first = rows[baseline]
    figures = {
        title: [number(value) for value in (first[name], best[name], best[name] / first[name])]
        for name, title in _FIGURES.items()
        # A frame has no column of a cost without a price; a comparison with NaN is false
        if name in first and first[name] > 0 and best[name] > 0
    }
    settings = {name: [str(first[name]), str(best[name]), ""] for name in _varying_columns(frame)}
    columns = ["baseline", "best", "best / baseline"]
    return pd.DataFrame.from_dict({**settings, **figures}, orient="index", columns=columns)


def by_choice(frame: pd.DataFrame, group: str = "backend") -> pd.DataFrame:
    """The fastest cell of each value of `group`, with its settings, latency and memory.

    This is the predecessor system's second table.

    Raises:
        ResultError: no cell finished.
    """
    finished = _finished(frame)
    best = finished.loc[finished.groupby(group)[RATE].idxmax()].sort_values(RATE, ascending=False)
    settings = [name for name in _varying_columns(frame) if name != group]
    figures = [name for name in _FIGURES if name in best]
    return best[[group, *settings, *figures]].rename(columns=_FIGURES).set_index(group).round(2)


def latency_ranges(requests: pd.DataFrame) -> pd.DataFrame:
    """Throughput of single requests by latency range in pairs/s, for every cell.

    This is the predecessor system's third table.
    """
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
    """Percentiles, mean and maximum of latency, service time and stages in ms, for every cell.

    Only requests that succeeded are counted.
    """
    names = ["latency_ms", "service_ms", "tokenize_ms", "queue_ms", "infer_ms"]
    good = requests[requests["status"] == "OK"].groupby("cell")[names]
    table = {
        **{f"p{percent}": good.quantile(percent / 100) for percent in (50, 95, 99)},
        "mean": good.mean(),
        "max": good.max(),
    }
    return pd.concat(table, names=["", "cell"]).swaplevel().sort_index(level="cell").round(2)


def request_plots(requests: pd.DataFrame) -> Pictures:
    """The plots of a cell report, for every cell in `requests`: latency distribution, the run over
    time, throughput against latency, stages."""

    def plan(group: pd.DataFrame, folder: Path) -> Mapping[str, Draw]:
        from crossbench.report.cell_plots import cell_plots

        name = f"cell {group['cell'].iloc[0]}"
        return cell_plots(records_of(group), folder, Task.SCORE.unit, name=name)

    images: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for cell, group in requests.groupby("cell"):
        drawn = draw_pictures(partial(plan, group))
        images |= {f"Cell {cell}: {title}": image for title, image in drawn.images.items()}
        missing |= {f"Cell {cell}: {title}": why for title, why in drawn.missing.items()}
    return Pictures(images, missing)


def window_series(requests: pd.DataFrame) -> pd.DataFrame:
    """Throughput (pairs/s), replies and latency (ms) of every time window, for every cell.

    `time_s` is the end of the window.
    """
    parts = []
    for cell, group in requests.groupby("cell"):
        series = windows(records_of(group)).series()
        parts.append(pd.DataFrame({"cell": cell, **series}))
    return pd.concat(parts, ignore_index=True).round(2)


def correlation_table(requests: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r of throughput and latency per request and per window, and of tokens and latency.

    There is a row with a 95 % interval for each, for every cell.
    """
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
    """Mean requests in flight, waiting and computing by Little's law, for every cell.

    See `measure.queueing.Queueing`.
    """
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
    """Settings that vary, throughput, p95 and all quality metrics, fastest cell first.

    Cells without a quality check have no quality metrics.
    """
    names = [name for name in frame.columns if catalogue.family(name) == catalogue.QUALITY_FAMILY]
    kept = frame[[*_varying_columns(frame), RATE, P95, *names]].copy()
    for name in names:  # as in the plot: on the queries that all cells checked
        kept[name] = [run.result.metrics.get(name) for run in runs_of(frame)]
    titles = {name: catalogue.key(name) for name in names}
    table = kept.rename(columns={**_FIGURES, **titles})
    table = table.sort_values(PAIRS_PER_S.heading, ascending=False)
    digits = {PAIRS_PER_S.heading: 1, P95_LATENCY.heading: 2}
    return table.round(4).round(digits).reset_index(drop=True)


def quality_plots(frame: pd.DataFrame, metrics: Sequence[str]) -> Pictures:
    """One plot of throughput against each of the quality `metrics`, with one point per cell.

    A metric that no cell has gives no plot.
    """
    runs = runs_of(frame)
    axes, joined = varying([run.result.config for run in runs]), summarise_cells(runs)

    def plan(folder: Path) -> Mapping[str, Draw]:
        from crossbench.report.ranking_plot import quality_plot

        found: dict[str, Draw] = {}
        for name in metrics:
            if metric := catalogue.BY_NAME.get(name):
                found |= quality_plot(joined, axes, metric, folder)
        return found

    return draw_pictures(plan)


def runs_of(frame: pd.DataFrame) -> list[Run]:
    """Convert the frame's rows to runs: from the cells' files if `folder` contains them, else from
    the row alone.

    With files, the ranking quality is that on the queries that all cells checked.
    """
    rows = frame.to_dict("records")
    return on_common_queries(
        [_run(row) for row in rows], [Path(str(row["folder"])) for row in rows]
    )


def _run(row: Mapping[Any, Any]) -> Run:
    if (folder := _folder(row)) is not None:
        return Run(str(row["cell"]), *load_cell(folder))
    known = {str(key): value for key, value in row.items() if not _is_missing(value)}
    not_settings = {*CELL_COLUMNS, "run_id"}
    config = {key: value for key, value in known.items() if not ("/" in key or key in not_settings)}
    result = RunResult(
        status=Status(row["status"]),
        config=CellConfig(config),
        cell_id=str(row["cell_id"]),
        error=known.get("error"),
        metrics={key: value for key, value in known.items() if "/" in key},
        flags=dict.fromkeys(filter(None, str(known.get("flags", "")).split(",")), ""),
    )
    return Run(str(row["cell"]), result)


def _folder(row: Mapping[Any, Any]) -> Path | None:
    """The folder with the cell's files; None if it is not on this machine."""
    folder = Path(str(row["folder"]))
    return folder if folder.is_absolute() and (folder / RESULT_FILE).exists() else None


def _finished(frame: pd.DataFrame) -> pd.DataFrame:
    finished = frame[(frame["status"] == str(Status.FINISHED)) & frame[RATE].notna()]
    if finished.empty:
        raise ResultError(
            "no cell finished, so there is nothing to compare: see the column `error`"
        )
    return finished


def _varying_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of the settings that vary, see `varying`."""
    axes = varying([run.result.config for run in runs_of(frame)])
    return [axis for axis in axes if axis in frame.columns]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and pd.isna(value))
