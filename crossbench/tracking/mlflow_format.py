"""Results in MLflow's form: tags, metrics, descriptions and the data set.

All functions are pure: they convert results to the values that MLflow stores and displays.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from crossbench.measure import catalogue
from crossbench.measure.machines import kinds_of_machines
from crossbench.measure.metric import Metric, View
from crossbench.measure.ranking import Verdict, ranks_safely
from crossbench.measure.statistics import percentile_supported
from crossbench.results import Flag, RunResult, Status
from crossbench.types import Quant
from crossbench.wording import markdown_text

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

# Limits of MLflow's stores and its REST API, in characters
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_DIGEST = 250, 6000, 8000, 36
_MIN_TAIL, _MAX_TAIL = 20, 2000
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 25  # 100 are allowed, but 100 long ones would exceed the API's 1 MB per call

# Tags that identify a run. The last one is written after everything else: a run without it is
# incomplete, and `python -m crossbench.sync` completes it.
SWEEP_TAG, CELL_TAG, COMPLETE_TAG = "crossbench.sweep", "crossbench.cell", "crossbench.complete"
PROCESS_TAG = "crossbench.process"  # see `run_process.RunProcess`
UPLOAD_TAG = "crossbench.upload"  # see `sweep.upload`
DIGEST_TAG, FLAGS_TAG = "crossbench.model_digest", "crossbench.flags"
PARENT_TAG, NOTE_TAG = "mlflow.parentRunId", "mlflow.note.content"

# Written first, as MLflow's charts and its compare page show metrics in the order of writing
LEADING_METRICS = catalogue.names(View.MLFLOW_FIRST)
_PICTURE = re.compile(r"!\[(.*?)\]\((.*?)\)")
_LINK_ELSEWHERE = re.compile(
    r"(^|[^!\\])\[((?!\d+\]\(\d+/report\.md\))[^\]\n]*)\]\(([^)\n]*)\)", re.M
)
_FOLDED = re.compile(r"^<details>\n.*?\n</details>\n+", re.M | re.S)
_SECTION = "\n## "
_REST = "\n\nThe rest is in the artifact report.md."
_CELL_LINK = re.compile(r"\[(\d+)\]\(\d+/report\.md\)")
T = TypeVar("T")


def environment_tags(found: Mapping[str, Any]) -> dict[str, str]:
    """Convert the result of `environment()` to tags: commit, machine and versions."""
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
    """The tags of a cell's run, including its description."""
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
    if result.flags:
        tags[FLAGS_TAG] = ",".join(result.flags)
    if digest := result.model.get("digest"):
        tags |= {DIGEST_TAG: str(digest), "model": str(result.model.get("name", ""))}
    return tags


def cell_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """A cell's finite metrics, the most important ones first."""
    names = [*(name for name in LEADING_METRICS if name in metrics), *metrics]
    return {name: metrics[name] for name in dict.fromkeys(names) if is_number(metrics[name])}


def sweep_metrics(results: Sequence[RunResult]) -> dict[str, float]:
    """Summary metrics of a sweep for its parent run: cells by status, and the best values.

    The best values are of cells that keep the ranking, and the best latency of those whose
    percentile can be compared: not over-saturated, and with enough requests. Cells of unlike
    machines are not compared, so such a sweep has no best values.
    """
    metrics = {catalogue.CELLS[status].name: 0.0 for status in Status}
    for result in results:
        metrics[catalogue.CELLS[result.status].name] += 1
    finished = [item for item in results if item.status is Status.FINISHED]
    if len(set(kinds_of_machines(item.environment for item in finished).values())) > 1:
        return metrics
    safe = _with_safe_ranking(finished)
    for name, best in catalogue.BEST.items():
        compared = [
            result.metrics for result in safe if _is_compared(result, catalogue.BY_NAME[name])
        ]
        values = [found[name] for found in compared if is_number(found.get(name))]
        if values:
            metrics[best.name] = best.better.pick(values)
    return metrics


def _with_safe_ranking(results: Sequence[RunResult]) -> list[RunResult]:
    """The results at fp32 or with a verified ranking; without any, all that do not change it."""
    verdicts = [(item, Verdict(item.quality.get("verdict", Verdict.UNCHECKED))) for item in results]
    kept = [(item, verdict) for item, verdict in verdicts if verdict is not Verdict.CHANGES]
    safe = [
        item
        for item, verdict in kept
        if ranks_safely(verdict, item.config.value("quant", Quant.FP32))
    ]
    return safe or [item for item, _ in kept]


def _is_compared(result: RunResult, metric: Metric) -> bool:
    """Whether a cell's metric can be the best of its sweep."""
    if metric.percentile is None:
        return True
    requests = result.metrics.get(catalogue.REQUESTS_OK.name)  # unknown in the oldest results
    supported = requests is None or percentile_supported(metric.percentile, int(requests))
    return supported and Flag.OVER_SATURATED not in result.flags


def live_step(time_s: float) -> int:
    """Round a window's end to whole seconds, half up, so that no two windows share a step.

    Windows are at least one second long, except the last one, which is at least half as long.
    """
    return math.floor(time_s + 0.5)


def sweep_note(report: Path, run_id: str, pages: Mapping[int, str]) -> str:
    """The sweep's report as the description of its run.

    Images refer to the run's artifacts: to the SVG files where there are any, because MLflow shows
    every pixel of a PNG, which does not fit. Links to cells' reports become links to the pages of
    their runs. `pages` maps cell numbers to these pages. The report quotes names and errors, so
    other links, such as those to files, become text, and so does HTML. What is folded is left out,
    as MLflow cannot fold, and so are the last sections of a report that is too long for a tag.
    """
    if not report.exists():
        return ""

    def picture(found: re.Match[str]) -> str:
        drawn = Path(found[2]).with_suffix(".svg")
        path = drawn.as_posix() if (report.parent / drawn).is_file() else found[2]
        return f"![{found[1]}](get-artifact?path={quote(path, safe='')}&run_uuid={run_id})"

    def page(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"[{number}]({pages[number]})" if number in pages else found[1]

    text = _FOLDED.sub("", report.read_text("utf-8")).replace("<", "&lt;")
    text = _LINK_ELSEWHERE.sub(r"\1\\[\2\\](\3)", text)
    return _whole_sections(_CELL_LINK.sub(page, _PICTURE.sub(picture, text)).rstrip())


def _whole_sections(text: str) -> str:
    """As many sections of a text in Markdown, from the first one on, as fit into a tag."""
    if len(text) <= MAX_TAG:
        return text
    kept, *others = text.split(_SECTION)
    for section in others:
        if len(kept) + len(_SECTION) + len(section) + len(_REST) > MAX_TAG:
            break
        kept += _SECTION + section
    return kept.rstrip() + _REST


def lost_note(pid: int, host: str) -> str:
    """The description of a run that its process did not end."""
    return (
        f"**killed**: process {pid} on {markdown_text(host)} ended without ending this run. If its "
        "result is on disk, `python -m crossbench.sync` completes it."
    )


def dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    """Convert a result's data set to an MLflow dataset input."""
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
        # MLflow opens a `local` source as a folder; generated or downloaded data is a `code` source
        source_type="local" if is_local else "code",
        source=json.dumps(
            {"uri": source} if is_local else {"tags": {"mlflow.source.name": source}}
        ),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile, default=str),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "benchmark")])


def artifacts(folder: Path) -> list[Path]:
    """The files of a cell's or sweep's folder to upload, and its plots.

    Left out are cells' folders, partial and empty files, and the dashboard's journal.
    """
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name == "plots"
        or (
            path.is_file() and path.suffix not in ("", ".partial", ".jsonl") and path.stat().st_size
        )
    ]


def shorten(text: str, most: int) -> str:
    """Cut a text in the middle to at most `most` characters and note its full length.

    The end is kept, because an error message ends with what to do.
    """
    if len(text) <= most:
        return text
    mark = f" … [{len(text)} characters]"
    kept = most - len(mark)
    tail = min(_MAX_TAIL, kept // 4)
    if tail < _MIN_TAIL:
        return text[:kept] + mark
    return f"{text[: kept - tail - 3]} … {text[-tail:]}{mark}"


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def unix(iso: str) -> float:
    """Convert an ISO time to Unix seconds; 0 if it is invalid or empty."""
    try:
        return datetime.fromisoformat(iso).timestamp()
    except ValueError:
        return 0.0


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _cell_note(result: RunResult) -> str:
    error = f": {markdown_text(result.error)}" if result.error else ""
    lines = [f"**{result.status}**{error}"]
    rows = [
        f"| {metric.heading} | {metric.text(result.metrics[metric.name], more_digits=1)} |"
        for metric in catalogue.shown(View.MLFLOW_NOTE)
        if is_number(result.metrics.get(metric.name))
    ]
    lines += ["", "| | |", "|---|---:|", *rows] if rows else []
    lines += [""] if result.warnings else []
    return "\n".join([*lines, *(f"- {markdown_text(warning)}" for warning in result.warnings)])
