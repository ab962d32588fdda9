"""JSON files of a model folder, read with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crossbench.errors import ModelError

LFS_HEAD = b"version https://git-lfs.github.com/spec/"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder's file.

    Raises:
        ModelError: the file is not a JSON object.
    """
    document = _read(path)
    if not isinstance(document, dict):
        raise ModelError(f"{path} holds no JSON object: restore the file")
    return document


def read_json_if_there(path: Path) -> dict[str, Any]:
    """The JSON object of a file that a folder need not have; {} without the file.

    Raises:
        ModelError: the file is there and not a JSON object.
    """
    return read_json(path) if path.is_file() else {}


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects from a model folder's file.

    Raises:
        ModelError: the file is not such a list.
    """
    document = _read(path)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise ModelError(f"{path} holds no list of JSON objects: restore the file")
    return document


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the small text that git leaves where Git LFS did not run."""
    with path.open("rb") as file:
        return file.read(len(LFS_HEAD)) == LFS_HEAD


def refuse_lfs_pointer(path: Path) -> None:
    """Raises ModelError where the file is a Git LFS pointer."""
    if is_lfs_pointer(path):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in the "
            "model's repository, or download the file"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _read(path: Path) -> Any:
    try:
        refuse_lfs_pointer(path)
        return json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): restore the file") from error
