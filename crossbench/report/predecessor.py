"""The predecessor system's figures, compared with cells of the same batch and concurrency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossbench.load.labels import CONCURRENCY_KEY, load_labels
from crossbench.measure import catalogue
from crossbench.measure.metric import View
from crossbench.report.columns import metric_text
from crossbench.report.tables import markdown_table
from crossbench.results import RunResult, Status
from crossbench.wording import ABSENT, number

_COLUMNS = catalogue.shown(View.PREDECESSOR)


def predecessor_section(named: Sequence[tuple[str, RunResult]]) -> str:
    """A section with the predecessor's figures and the matching cells among (label, result).

    Empty if the study has no figures of the predecessor (the config node `predecessor`).
    """
    entries = predecessor_entries([result for _, result in named])
    if not entries:
        return ""
    rows = []
    for entry, machine in entries.values():
        metrics = entry["metrics"]
        numbers = [metric.text(metrics.get(metric.name)) for metric in _COLUMNS]
        rows.append([f"predecessor: {entry['name']}", machine, *numbers, ABSENT])
        rows += [
            _cell_row(label, result, metrics)
            for label, result in named
            if _has_same_load(entry, result)
        ]
    headers = ["", "machine", *(metric.heading for metric in _COLUMNS), "throughput / predecessor"]
    table = markdown_table(headers, rows, "ll" + "r" * (len(_COLUMNS) + 1))
    return (
        f"## Comparison with the predecessor system\n\n{table}\n\nThe predecessor ran on "
        "other hardware, with other software and perhaps with another model and other data. Its "
        "figures are for orientation only. They do not show which of the two systems is faster."
    )


def predecessor_entries(results: Sequence[RunResult]) -> dict[str, tuple[Mapping[str, Any], str]]:
    """The predecessor's figures by their key, each with the machine it was measured on."""
    found: dict[str, tuple[Mapping[str, Any], str]] = {}
    for result in results:
        figures = result.config.section("predecessor") or result.config.section("reference")
        for key, entry in figures.items():
            if isinstance(entry, Mapping):
                found.setdefault(key, (entry, str(figures.get("machine", ABSENT))))
    return found


def _has_same_load(entry: Mapping[str, Any], result: RunResult) -> bool:
    """Whether the cell has the entry's load; all entries are of a closed loop."""
    config = result.config
    return (
        result.status == Status.FINISHED
        and load_labels(config) == (CONCURRENCY_KEY,)
        and all(config.value(key) == entry.get(key) for key in ("batch", CONCURRENCY_KEY))
    )


def _cell_row(label: str, result: RunResult, predecessor: Mapping[str, float]) -> list[str]:
    metrics, key = result.metrics, catalogue.PAIRS_PER_S.name
    times = number(metrics[key] / predecessor[key]) + "×" if key in metrics else ABSENT
    return [
        f"this run: {label}",
        str(result.environment.get("cpu", "this machine")),
        *(metric_text(metric, metrics) for metric in _COLUMNS),
        times,
    ]
