"""The state of a sweep, stored in its folder as sweep.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossbench.errors import ResultError
from crossbench.settings.overrides import REPEAT
from crossbench.system.files import atomic_write
from crossbench.system.json_text import parse_json

STATE_FILE = "sweep.json"
_TYPES: Mapping[str, Any] = {
    "name": str,
    "cells": int,
    "parent_run_id": str | None,
    "pid": int,
    "dashboard_url": str | None,
    "title": str,
}
_OLDER_VERSIONS_LACK: Mapping[str, Any] = {"dashboard_url": None, "title": "", "axes": []}


@dataclass(frozen=True, slots=True)
class SweepState:
    """The state of a sweep.

    `name` is that of its folder, and `axes` are the keys that it varies. `title` is the name of its
    MLflow run; that of older sweeps is empty, as their runs are named after the folder.
    """

    name: str
    cells: int
    parent_run_id: str | None
    pid: int
    dashboard_url: str | None
    axes: tuple[str, ...]
    title: str = ""


def sweep_title(given: str | None, axes: Sequence[str], folder: str) -> str:
    """Return what people call a sweep: the name that was `given`, else its axes and its folder.

    For example `batch, quant (2026-01-02_03-04-05)`.
    """
    varied = ", ".join(axis for axis in axes if axis != REPEAT)
    return given or (f"{varied} ({folder})" if varied else folder)


def read_state(folder: Path) -> SweepState:
    """Read the state of the sweep in `folder`; keys of later versions are left out.

    Raises:
        ResultError: the file is missing, is not valid JSON, or has other values.
    """
    path = folder / STATE_FILE
    try:
        document = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, f"cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise _unusable(path, "has no keys and values")
    values = {**_OLDER_VERSIONS_LACK, **document}
    for key, kind in _TYPES.items():
        if key not in values:
            raise _unusable(path, f"has no {key}")
        if not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise _unusable(path, f"has {key}={str(values[key])[:80]!r}")
    axes = values["axes"]
    if not isinstance(axes, list) or not all(isinstance(axis, str) for axis in axes):
        raise _unusable(path, f"has axes={str(axes)[:80]!r}")
    return SweepState(**{key: values[key] for key in _TYPES}, axes=tuple(axes))


def save_state(state: SweepState, folder: Path) -> None:
    """Write the state of the sweep into its folder, atomically."""
    with atomic_write(folder / STATE_FILE) as partial:
        partial.write_text(json.dumps(asdict(state)) + "\n", "utf-8")


def _unusable(path: Path, what: str) -> ResultError:
    return ResultError(
        f"{path} {what}, so the sweep is not known: restore the file, or move it away, so that "
        "the cells count as single ones"
    )
