"""Launch runs of a sweep on the machines of a cluster: what its launchers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import composed_config
from crossbench.settings.run import run_settings
from crossbench.settings.stored_plan import read_plan
from crossbench.settings.sweep_state import read_state
from crossbench.sweeps.cluster.placement import Placement
from crossbench.sweeps.cluster.reception import Reception
from crossbench.sweeps.conduct import has_result
from crossbench.sweeps.folder import mark_interrupted
from crossbench.sweeps.objective import read_objective
from crossbench.sweeps.services import make_tracking


class Cluster(Protocol):
    """Machines that measure cells."""

    def measure(self, placement: Placement, reception: Reception) -> None:
        """Have all cells measured; each ends in the reception, also if its machine is lost.

        Raises:
            ConfigError: there is no cluster.
            KeyboardInterrupt: after a stop signal. No cell is then measured any more, and what was
                handed back has been received.
        """
        ...


def launch(
    cluster: Cluster,
    context: HydraContext,
    config: DictConfig,
    points: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Measure the runs with these overrides, the first of which has the number `first`.

    Runs that have a result are left out. Returns the value of the objective for each run, if the
    sweep has an objective.
    """
    folder = Path(config.hydra.sweep.dir)
    configs: dict[int, CellConfig] = {}
    for number, point in enumerate(points, first):
        if not has_result(folder / str(number)):
            composed = context.config_loader.load_sweep_config(config, list(point))
            configs[number] = composed_config(composed)
    run = run_settings(config, list(config.hydra.overrides.task))
    reception = Reception(
        folder, configs, read_state(folder), make_tracking(run, folder), read_objective(config)
    )
    placement = Placement(units_of(folder, list(configs)), config.cluster.tries)
    try:
        cluster.measure(placement, reception)
    except KeyboardInterrupt:
        mark_interrupted(folder)
        reception.interrupt()
    return [
        JobReturn(status=JobStatus.COMPLETED, _return_value=reception.values.get(number))
        for number in range(first, first + len(points))
    ]


def units_of(folder: Path, numbers: Sequence[int]) -> list[list[int]]:
    """Return the runs that belong on one machine: those of a block, or each alone without blocks.

    `folder` is that of the sweep, which has a plan.
    """
    plan = read_plan(folder)
    assert plan is not None  # the sweep has stored it
    blocks: dict[tuple[int | None, int], list[int]] = {}
    for number in numbers:
        repeat = plan.runs[number].repeat
        blocks.setdefault((repeat, number if repeat is None else 0), []).append(number)
    return list(blocks.values())
