"""Check a result.json against the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from tests.helpers.places import REPO

SCHEMA = REPO / "docs" / "result.schema.json"


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return found


def problems(document: object) -> list[str]:
    """What the published schema finds wrong with a result."""
    checker = Draft202012Validator(schema(), format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(document)]


def undescribed(document: dict[str, Any]) -> set[str]:
    """The keys of a result that the schema does not describe: `model/name`."""
    described = schema()["properties"]
    sections = ("metrics", "environment", "series", "model", "dataset", "quality")
    return {key for key in document if key not in described} | {
        f"{section}/{key}"
        for section in sections
        for key in document[section]
        if key not in described[section]["properties"]
    }


def check_result_file(folder: Path) -> None:
    """Check `folder`/result.json, which this version has written."""
    document = json.loads((folder / "result.json").read_text("utf-8"))
    assert problems(document) == []
    assert undescribed(document) == set()
