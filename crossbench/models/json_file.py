"""JSON files of a model folder, read with words for who has to mend them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossbench.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder's file.

    Raises:
        ModelError: the file is not a JSON object.
    """
    document = _read(path)
    if not isinstance(document, dict):
        raise ModelError(f"{path} holds no JSON object: restore the file")
    return document


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects from a model folder's file.

    Raises:
        ModelError: the file is not such a list.
    """
    document = _read(path)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise ModelError(f"{path} holds no list of JSON objects: restore the file")
    return document


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): restore the file") from error
