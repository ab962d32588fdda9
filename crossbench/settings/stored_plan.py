"""The plan of a sweep as a file in its folder: what was asked for, and the order of its runs.

It is written before the first cell, so that a sweep can be resumed whenever it was killed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from crossbench.errors import ConfigError
from crossbench.system.files import write_file
from crossbench.system.json_text import parse_json

PLAN_FILE = "plan.json"
FIRST_LOOK = 3  # a sweep with `until_decided` is looked at from this block on


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a sweep: the index of its cell in `StoredPlan.cells`, and the value of `repeat`.

    `repeat` is the number of its block, None if the command line does not set it.
    """

    cell: int
    repeat: int | None


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A sweep as it was asked for.

    `arguments` are those of the command, without credentials, given in `directory`. `cells` has the
    ids of the cells (see `settings.identity`), in the order in which the command names them; an id
    is empty if the config of the cell cannot be resolved. `runs` are in the order of running: the
    n-th one, counted from 0, has the folder `n`.
    """

    arguments: tuple[str, ...]
    directory: str
    cells: tuple[str, ...]
    runs: tuple[PlannedRun, ...]

    def save(self, folder: Path) -> None:
        """Write the plan into the folder of its sweep, atomically.

        Raises:
            NotWritten: it cannot be written.
        """
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_file(folder / PLAN_FILE, text.encode("utf-8", "surrogateescape"))


def read_plan(folder: Path) -> StoredPlan | None:
    """Return the plan of the sweep in `folder`; None if it has none, like those of old versions.

    Raises:
        ConfigError: the file is damaged, or not a plan of this version.
    """
    path = folder / PLAN_FILE
    try:
        document = parse_json(path.read_bytes().decode("utf-8", "surrogateescape"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): start a new sweep") from error
    try:
        lists = [document[key] for key in ("arguments", "cells", "runs")]
        plan = StoredPlan(
            arguments=tuple(document["arguments"]),
            directory=document["directory"],
            cells=tuple(document["cells"]),
            runs=tuple(PlannedRun(**run) for run in document["runs"]),
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} was written by another version of crossbench ({error!r}): start a new sweep"
        ) from error
    if not all(isinstance(values, list) for values in lists) or not _is_sound(plan):
        raise ConfigError(f"{path} is damaged: start a new sweep")
    return plan


def _is_sound(plan: StoredPlan) -> bool:
    """Whether the values have their types, and every run names one of the cells."""
    texts = [*plan.arguments, plan.directory, *plan.cells]
    blocks = [run.repeat for run in plan.runs]
    return (
        bool(plan.runs)
        and all(isinstance(text, str) for text in texts)
        and all(block is None or isinstance(block, int) for block in blocks)
        and all(isinstance(run.cell, int) and 0 <= run.cell < len(plan.cells) for run in plan.runs)
    )
