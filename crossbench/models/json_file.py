"""Read the JSON files of a model folder, with errors that name the file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from crossbench.errors import ModelError
from crossbench.models.folder_files import check_size
from crossbench.system.json_text import parse_json

DEEPEST = 64  # levels; the deepest files of real models have about ten
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


def _check_depth(document: Any) -> None:
    """Refuse what later steps, which call themselves for each level, could not handle."""
    level, depth = [document], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        items = (node.values() if isinstance(node, dict) else node for node in level)
        level = list(itertools.chain.from_iterable(items))
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _read(path: Path) -> Any:
    try:
        check_size(path)
        refuse_lfs_pointer(path)
        document = parse_json(path.read_text("utf-8"), parse_constant=_refuse_constant)
        _check_depth(document)
        return document
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): restore the file") from error
