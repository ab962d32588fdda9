"""Read the JSON files of a model folder, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossbench.errors import ModelError

LFS_HEAD = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    Raises:
        ModelError: the file is not a JSON object.
    """
    document = _read(path)
    if not isinstance(document, dict):
        raise ModelError(f"{path} does not contain a JSON object: restore the file")
    return document


def read_optional_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in an optional file, or {} if the file does not exist.

    Raises:
        ModelError: the file exists and is not a JSON object.
    """
    return read_json(path) if path.is_file() else {}


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Return the JSON list of objects in a file of a model folder.

    Raises:
        ModelError: the file is not such a list.
    """
    document = _read(path)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise ModelError(f"{path} does not contain a list of JSON objects: restore the file")
    return document


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a pointer, the small text that git leaves if Git LFS did not run."""
    with path.open("rb") as file:
        return file.read(len(LFS_HEAD)) == LFS_HEAD


def refuse_lfs_pointer(path: Path) -> None:
    """Raise ModelError if the file is a Git LFS pointer."""
    if is_lfs_pointer(path):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in the "
            "model's repository, or download the file"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _read(path: Path) -> Any:
    try:
        refuse_lfs_pointer(path)
        return json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): restore the file") from error
