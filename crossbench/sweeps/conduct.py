"""Run the plan of a sweep with any launcher of Hydra, block by block."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from crossbench.errors import ConfigError
from crossbench.results import RESULT_FILE
from crossbench.settings.blocks import Grid
from crossbench.settings.overrides import sweep_points
from crossbench.settings.stored_plan import FIRST_LOOK, StoredPlan, read_plan
from crossbench.sweeps.decide import undecided
from crossbench.sweeps.folder import MULTIRUN_FILE, is_interrupted, mark_interrupted
from crossbench.sweeps.launchers import Portion, portion_of
from crossbench.sweeps.services import console
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.credentials import hide_config
from crossbench.system.files import NotWritten, atomic_write
from crossbench.wording import counted

_LISTED = 5  # undecided cells that a message names


def conduct(config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> list[Any]:
    """Launch the runs of the stored plan that have no result, and return what they return.

    Hydra's basic launcher gets one run at a time, and others a block or the whole sweep (see
    `launchers`). After Ctrl-C, nothing more is launched. With `until_decided`, the plan has all
    blocks that may be needed, and no launcher gets more than one at a time; once every cell is
    decided, the rest of them is removed from the plan.

    Raises:
        ConfigError: the folder of the sweep has no plan.
    """
    folder = Path(config.hydra.sweep.dir)
    if config.resume is None:
        save_multirun(config, folder)
    params = config.hydra.sweeper.params or {}
    grid = Grid.of(sweep_points([*(f"{key}={value}" for key, value in params.items()), *arguments]))
    plan = read_plan(folder)
    if plan is None:
        raise ConfigError(f"{folder} has no plan: start a new sweep")
    returned: list[Any] = []
    portion = portion_of(config.hydra.launcher)
    if config.until_decided and portion is Portion.SWEEP:
        portion = Portion.BLOCK
    for numbers in batches(plan, folder, portion):
        with keep_going(numbers, folder):
            if config.until_decided and _is_decided(plan, numbers[0], folder):
                shorten_plan(plan, numbers[0], folder)
                break
            points = [grid.point(plan.runs[n].cell, plan.runs[n].repeat) for n in numbers]
            jobs = launcher.launch(points, initial_job_idx=numbers[0])
            returned += [job.return_value for job in jobs]  # raises the exception of a failed job
    return returned


@contextlib.contextmanager
def keep_going(numbers: Sequence[int], folder: Path) -> Iterator[None]:
    """Launch the runs with these numbers: a full disk or Ctrl-C does not end the whole sweep."""
    try:
        yield
    except OSError as error:  # Hydra could not create the folder of a cell
        for number in numbers:
            unsaved_files.not_measured(folder / str(number), error)
    except KeyboardInterrupt:  # between two cells
        mark_interrupted(folder)
        for number in numbers:
            with contextlib.suppress(OSError):  # of a cell that has files
                (folder / str(number)).rmdir()  # Hydra created it


def shorten_plan(plan: StoredPlan, runs: int, folder: Path) -> None:
    """Leave the last runs out of the plan of a sweep."""
    try:
        replace(plan, runs=plan.runs[:runs]).save(folder)
    except NotWritten as error:
        unsaved_files.keep(error)


def _is_decided(plan: StoredPlan, number: int, folder: Path) -> bool:
    """Return whether run `number` begins a block that is no longer needed."""
    block = plan.runs[number].repeat
    if block is None or block <= FIRST_LOOK or plan.runs[number - 1].repeat == block:
        return False
    left = undecided(folder)
    if left is None:
        console.tell(
            f"after {block - 1} blocks, no two cells have a throughput that can be compared, so no "
            "further block is measured"
        )
        return True
    if not left:
        console.tell(f"after {block - 1} blocks, every cell is decided against the baseline")
        return True
    names = ", ".join(left[:_LISTED]) + (", ..." if len(left) > _LISTED else "")
    cells = f"{counted(len(left), 'cell')} undecided: {names}"
    console.tell(escape(f"after {block - 1} blocks, {cells}"))
    return False


def batches(plan: StoredPlan, folder: Path, portion: Portion) -> Iterator[list[int]]:
    """Yield the numbers of the runs to launch together: one, those of a block, or all.

    A batch has consecutive numbers, because Hydra counts them from its first. A run with a result
    within a batch is not measured again (see `job.run_job`).
    """
    whole = portion is Portion.SWEEP
    numbered = enumerate(plan.runs)
    for _, block in itertools.groupby(numbered, key=lambda item: whole or item[1].repeat):
        missing = [number for number, _ in block if not has_result(folder / str(number))]
        if not missing:
            continue
        together = range(missing[0], missing[-1] + 1)
        one_by_one = portion is Portion.CELL
        for batch in [[number] for number in missing] if one_by_one else [list(together)]:
            if is_interrupted(folder):
                return
            yield batch


def has_result(cell: Path) -> bool:
    """Return whether the run in this folder has ended."""
    return (cell / RESULT_FILE).exists()


def save_multirun(config: DictConfig, folder: Path) -> None:
    """Write what was asked for as `multirun.yaml`, without credentials."""
    given = [str(word) for word in config.hydra.overrides.task]  # Hydra joins them elsewhere
    document = hide_config(OmegaConf.to_container(config, resolve=False), given=given)
    text = OmegaConf.to_yaml(OmegaConf.create(document))
    with atomic_write(folder / MULTIRUN_FILE) as partial:
        partial.write_bytes(text.encode("utf-8", "surrogateescape"))
