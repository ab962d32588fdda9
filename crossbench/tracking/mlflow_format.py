"""What a sweep and its cells look like in MLflow: params, tags, descriptions, data set, a view.

Pure functions from results to what MLflow's stores and its pages take.
"""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from crossbench.measure import catalogue
from crossbench.measure.metric import View
from crossbench.results import RunResult, Status
from crossbench.settings.cell_config import CellConfig

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

# What MLflow's stores and its REST API take
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_DIGEST = 250, 6000, 8000, 36
_LEAST_OF_THE_END, _MOST_OF_THE_END = 20, 2000
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 25  # 100 are allowed, but so many long ones exceed the API's 1 MB a call

# Tags by which a run is found again. The last is written when all else is: without it a run lacks
# something, and `python -m crossbench.sync` completes it.
SWEEP_TAG, CELL_TAG, COMPLETE_TAG = "crossbench.sweep", "crossbench.cell", "crossbench.complete"
DIGEST_TAG = "crossbench.model_digest"
PARENT_TAG, NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"

# First in MLflow's charts and in its compare page, which take metrics in the order of their writing
LEADING_METRICS = catalogue.names(View.MLFLOW_FIRST)
_VIEW_COLUMNS = (
    *(f"params.`{name}`" for name in ("backend", "quant", "batch", "concurrency")),
    *(f"metrics.`{name}`" for name in LEADING_METRICS),
    "tags.`status`",
    "attributes.`Dataset`",
)
_VIEW_NAME = "Cells by throughput"
_UNFIT_IN_KEY = re.compile(r"[^\w\-. ]", re.ASCII)  # MLflow reads a slash as a path
_PICTURE = re.compile(r"!\[(.*?)\]\((.*?)\)")
_CELL_LINK = re.compile(r"\[(\d+)\]\(\d+/report\.md\)")
T = TypeVar("T")


def flatten_params(config: CellConfig) -> dict[str, str]:
    """Every value of a config by its dotted key, as MLflow takes it; a group's key has its `name`.

    Characters that a key may not have become `_`, credentials in URIs `***`, and what is too long
    is cut with a mark. How the cell is watched and stored is left out.
    """
    flat: dict[str, str] = {}
    for path, text in config.comparable.texts.items():
        key = _UNFIT_IN_KEY.sub("_", path)[: MAX_KEY - 10].strip(" .") or "_"
        while key in flat:  # two keys may have become one
            key += "_"
        flat[key] = shorten(text, MAX_PARAM)
    return flat


def sweep_params(overrides: Sequence[str]) -> dict[str, str]:
    """A sweep's command line as the parent run's params: what it varies, and over what."""
    swept = dict(item.partition("=")[::2] for item in overrides)
    return flatten_params(CellConfig({key.lstrip("+~"): value for key, value in swept.items()}))


def environment_tags(found: Mapping[str, Any]) -> dict[str, str]:
    """Tags from what `environment()` found: commit, machine and versions."""
    tags = {
        key: text
        for key in ("host", "os", "python", "cpu", "cores_usable", "memory_total_mb", "git_dirty")
        if (text := _text(found.get(key)))
    }
    if gpus := found.get("gpus"):
        tags["gpus"] = ", ".join(map(str, gpus))
    if commit := found.get("git_commit"):
        tags |= {"mlflow.source.git.commit": str(commit), "git_commit": str(commit)}
    for library, version in (found.get("versions") or {}).items():
        tags[f"version.{library}"] = str(version)
    return tags


def cell_tags(result: RunResult) -> dict[str, str]:
    """A cell's tags, its description among them."""
    tags = {
        **environment_tags(result.environment),
        "status": result.status.value,
        "cell_id": result.cell_id,
        NOTE_TAG: _cell_note(result),
    }
    if result.error:
        tags["error"] = result.error
    if result.quality:
        tags["quality"] = str(result.quality["verdict"])
        tags["quality.reason"] = str(result.quality["reason"])
    if digest := result.model.get("digest"):
        tags |= {DIGEST_TAG: str(digest), "model": str(result.model.get("name", ""))}
    return tags


def cell_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers among a cell's metrics, those that people look at first in front."""
    names = [*(name for name in LEADING_METRICS if name in metrics), *metrics]
    return {name: metrics[name] for name in dict.fromkeys(names) if is_number(metrics[name])}


def sweep_metrics(results: Sequence[RunResult]) -> dict[str, float]:
    """What a sweep's cells come to, so that its row in MLflow's table says something."""
    metrics = {catalogue.CELLS[status].name: 0.0 for status in Status}
    for result in results:
        metrics[catalogue.CELLS[result.status].name] += 1
    finished = [result.metrics for result in results if result.status is Status.FINISHED]
    for name, best in catalogue.BEST.items():
        values = [found[name] for found in finished if is_number(found.get(name))]
        if values:
            metrics[best.name] = best.better.pick(values)
    return metrics


def live_step(time_s: float) -> int:
    """A window's end in whole seconds, half up: two windows never share a step of MLflow's axis.

    Windows are a second or longer, but for the last, which takes half of one at least.
    """
    return math.floor(time_s + 0.5)


def sweep_note(report: Path, run_id: str, pages: Mapping[int, str]) -> str:
    """The sweep's report as a description: its pictures from the run's artifacts, and its cells'
    reports at the runs whose pages `pages` has by the cells' numbers."""
    if not report.exists():
        return ""

    def picture(found: re.Match[str]) -> str:
        return f"![{found[1]}](get-artifact?path={quote(found[2], safe='')}&run_uuid={run_id})"

    def page(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"[{number}]({pages[number]})" if number in pages else found[1]

    return _CELL_LINK.sub(page, _PICTURE.sub(picture, report.read_text("utf-8"))).rstrip()


def experiment_tags(created_ms: int) -> dict[str, str]:
    """Tags of a new experiment: its kind, a word on it, and a view with the columns one wants.

    The saved view is in the form that MLflow's page gives its own ("Views", "Save as new view"). It
    sorts by a metric since the page then lists cells without their parents, which hide them.
    """
    state = {
        "searchFilter": "",
        "orderByKey": f"metrics.`{LEADING_METRICS[0]}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(_VIEW_COLUMNS),
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {
            "xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""
        },
    }  # fmt: skip
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode("ascii")
    view = {
        "name": _VIEW_NAME,
        "createdAt": created_ms,
        "updatedAt": created_ms,
        "state": f"deflate;{packed}",
    }
    return {
        "mlflow.experimentKind": "custom_model_development",  # and not one of GenAI's pages
        "mlflow.sharedViewState.crossbench": json.dumps(view),
        NOTE_TAG: "A run is a sweep of crossbench, its children are the cells. "
        f"*Views*, *{_VIEW_NAME}* lists the cells with the columns one wants.",
    }


def dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    """A result's data set as an input of its run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = str(dataset.get("source", ""))
    is_local = bool(source) and Path(source).exists()
    profile = {
        key: value for key, value in dataset.items() if key not in ("name", "source", "digest")
    }
    columns = [{"type": "string", "name": name, "required": True} for name in ("query", "passage")]
    entity = Dataset(
        name=shorten(str(dataset["name"]), 500),
        digest=str(dataset["digest"])[:MAX_DIGEST],
        # MLflow resolves `local` to a folder; what is made up or fetched is described by its code
        source_type="local" if is_local else "code",
        source=json.dumps(
            {"uri": source} if is_local else {"tags": {"mlflow.source.name": source}}
        ),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile, default=str),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "benchmark")])


def artifacts(folder: Path) -> list[Path]:
    """What of a cell's or sweep's folder goes to MLflow: its files and its plots; no cells, nothing
    half written or empty (a log), and not the journal that the dashboard follows."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name == "plots"
        or (
            path.is_file() and path.suffix not in ("", ".partial", ".jsonl") and path.stat().st_size
        )
    ]


def shorten(text: str, most: int) -> str:
    """At most `most` characters, cut in the middle: a message ends with what to do about it.

    What is cut is told in the text itself.
    """
    if len(text) <= most:
        return text
    mark = f" … [{len(text)} characters]"
    kept = most - len(mark)
    tail = min(_MOST_OF_THE_END, kept // 4)
    if tail < _LEAST_OF_THE_END:
        return text[:kept] + mark
    return f"{text[: kept - tail - 3]} … {text[-tail:]}{mark}"


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def unix(iso: str) -> float:
    """Seconds since 1970; 0 where a result does not say when it started."""
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return 0.0


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _cell_note(result: RunResult) -> str:
    lines = [f"**{result.status}**" + (f": {result.error}" if result.error else "")]
    rows = [
        f"| {metric.heading} | {metric.text(result.metrics[metric.name], more_digits=1)} |"
        for metric in catalogue.shown(View.MLFLOW_NOTE)
        if is_number(result.metrics.get(metric.name))
    ]
    lines += ["", "| | |", "|---|---:|", *rows] if rows else []
    lines += [""] if result.warnings else []
    return "\n".join([*lines, *(f"- {warning}" for warning in result.warnings)])
