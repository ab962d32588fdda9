"""Writes docs/result.schema.json from the types that write a result: `make result-schema`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from crossbench.load.stop import End
from crossbench.measure.catalogue import LIVE, METRICS
from crossbench.measure.metric import Kind, Metric
from crossbench.measure.ranking import Verdict
from crossbench.measure.steps import Step
from crossbench.result_facts import DatasetFacts, EnvironmentFacts, ModelFacts, QualityFacts
from crossbench.results import SCHEMA_VERSION, Failure, Flag, RunResult, Status
from crossbench.settings.cell_config import CellConfig

_ABOUT = {
    "status": "How the cell ended. unavailable: this machine lacks a library or a device; "
    "unsupported: the backend has no such precision or device.",
    "config": "The composed configuration, see docs/configuration.md. Credentials are ***.",
    "cell_id": "Hash of what defines the cell; its repeats have the same.",
    "error": "Why the cell has no valid measurement; null if it is finished.",
    "metrics": "Metrics by name, see docs/metrics.md. Those that are undefined are absent.",
    "environment": "The machine, its libraries, and the source code.",
    "series": "Live series: one value for each window of the measurement.",
    "model": "The served model and its server; empty if the cell ended before they were known.",
    "dataset": "The data set, with lengths in tokens of the served model; empty likewise.",
    "quality": "What the backend and the precision did to the ranking; empty likewise.",
    "warnings": "Sentences about what affects how to read the numbers.",
    "end": "Why the measurement ended; empty if it did not begin, or in older results.",
    "failure": "Why a failed cell may succeed if it is measured again; empty for others.",
    "flags": "What limits what the numbers of a finished cell say, each with its reason.",
    "steps": "The levels of a ramp; empty for other loads. Times are in seconds since the start of "
    "the measurement.",
    "started_at": "When the cell started (ISO 8601, UTC); empty if that is not known.",
}
_KINDS: Mapping[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null",
}  # fmt: skip
_NUMBER = {"type": ["number", "null"]}  # null: NaN or infinite, which JSON cannot say
_STORED = {Kind.SHARE: "a share from 0 to 1", Kind.CHANGE: "a share of 1"}


def result_schema() -> dict[str, Any]:
    """Return the JSON schema of `result.json`."""
    parts = {
        "status": _one_of(Status),
        "metrics": _numbers({metric.name: _metric(metric) for metric in METRICS}),
        "environment": _facts(EnvironmentFacts),
        "series": _series(),
        "model": _facts(ModelFacts),
        "dataset": _facts(DatasetFacts),
        "quality": _quality(),
        "end": _one_of(End, ""),
        "failure": _one_of(Failure, ""),
        "flags": {**_of(Mapping[str, str]), "propertyNames": _one_of(Flag)},
        "steps": {"type": "array", "items": _facts(Step)},
    }
    hints = get_type_hints(RunResult)
    properties = {
        item.name: {
            "description": _ABOUT[item.name],
            **(parts.get(item.name) or _of(hints[item.name])),
        }
        for item in fields(RunResult)
    }
    required = [
        item.name
        for item in fields(RunResult)
        if item.default is MISSING and item.default_factory is MISSING
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:crossbench:result:{SCHEMA_VERSION}",
        "title": f"result.json of a cell, schema version {SCHEMA_VERSION}",
        "description": "The result of one cell of crossbench. Older files of the same version may "
        "lack keys that are not required, and later ones may have more.",
        "type": "object",
        "properties": {"schema_version": {"const": SCHEMA_VERSION}, **properties},
        "required": ["schema_version", *required],
    }


def schema_text() -> str:
    """Return the text of docs/result.schema.json."""
    return json.dumps(result_schema(), indent=2) + "\n"


def _of(hint: Any) -> dict[str, Any]:
    """Return the schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return {"description": arguments[1], **_of(arguments[0])}
    if origin is NotRequired:
        return _of(arguments[0])
    if origin is UnionType:
        return {"type": [_KINDS[kind] for kind in arguments]}
    if origin in (list, Sequence):
        return {"type": "array", "items": _of(arguments[0])}
    if origin in (dict, Mapping):
        value = arguments[1]
        return {"type": "object"} | ({} if value is Any else {"additionalProperties": _of(value)})
    if hint is CellConfig:
        return {"type": "object"}
    return {"type": _KINDS[hint]}


def _facts(kind: type) -> dict[str, Any]:
    """Return the schema of a TypedDict, which older files lack keys of, or of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    schema = {"type": "object", "properties": {key: _of(hint) for key, hint in hints.items()}}
    return schema if is_typeddict(kind) else {**schema, "required": [*hints]}


def _quality() -> dict[str, Any]:
    facts = _facts(QualityFacts)
    verdict = {**facts["properties"]["verdict"], **_one_of(Verdict)}
    return {**facts, "properties": {**facts["properties"], "verdict": verdict}}


def _series() -> dict[str, Any]:
    values = {"type": "array", "items": _NUMBER}
    ends = "Ends of the windows in seconds since the start of the measurement."
    named = {key: {"description": _described(metric), **values} for key, metric in LIVE.items()}
    properties = {"time_s": {"description": ends, **values}, **named}
    return {"type": "object", "properties": properties, "additionalProperties": values}


def _numbers(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": _NUMBER}


def _metric(metric: Metric) -> dict[str, Any]:
    return {"description": _described(metric), **_NUMBER}


def _described(metric: Metric) -> str:
    unit = _STORED.get(metric.kind, metric.unit)
    return f"{metric.title}{f', {unit}' if unit else ''}: {metric.about}"


def _one_of(kind: type[StrEnum], *others: str) -> dict[str, Any]:
    return {"enum": [*others, *map(str, kind)]}


if __name__ == "__main__":
    print(schema_text(), end="")
