"""Refuse a cell that cannot work, before anything is started or loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from crossbench.backends.availability import (
    Ready,
    Unsupported,
    availability,
    find_unsupported,
    raise_unsupported,
)
from crossbench.backends.base import Backend
from crossbench.errors import BackendUnavailable, ConfigError, TargetUnreachable
from crossbench.models.folder import ModelFolder
from crossbench.runner.compose import build_scheduler
from crossbench.runner.http_target import HttpServer
from crossbench.runner.load import build_stop, build_traffic
from crossbench.runner.ray_target import RayServe
from crossbench.runner.targets import Remote
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.plan import CellPlan, make_plan
from crossbench.types import Pipeline, Task


def check_config(config: CellConfig) -> CellPlan:
    """Return the plan of a config after checking all values that need no files and no device.

    Raises:
        CrossbenchError: a value cannot be used; the message has the first such value and what to
            give.
    """
    plan = make_plan(config)
    build_traffic(plan)
    build_scheduler(plan.scheduler, "padded")
    for component in (plan.model, plan.dataset, plan.pool, plan.quality):
        component.build()
    target = plan.target.build()
    if isinstance(target, HttpServer):
        target.check_task(plan.task)
        if plan.settings.pipeline is not Pipeline.FULL:
            raise ConfigError(
                f"pipeline={plan.settings.pipeline}: only a server of crossbench can run one stage "
                f"alone, so give pipeline=full with target={target.name}"
            )
    if plan.server is not None:
        server = plan.server.build()
        if isinstance(target, RayServe):
            target.check(server)
    return plan


def check_start(plans: Sequence[CellPlan]) -> None:
    """Refuse a run whose files are not there, or of which this machine can measure no cell.

    In a sweep, cells that cannot run are results as long as others can. Torch is imported only on
    a machine with an NVIDIA driver, if no other backend can run.

    Raises:
        ModelError, DatasetError: a path does not exist.
        TargetUnreachable: all cells are for servers of crossbench that run, and none answers.
        BackendUnavailable: no cell can run; the message has the reason of each kind of cell.
    """
    for plan in plans:
        for component in (plan.model, *plan.more_models.values(), plan.dataset):
            component.build().check()
    running = [plan.target.build() for plan in plans if plan.server is None]
    if running:  # this machine need not run a backend for these
        remote = [target for target in running if isinstance(target, Remote)]
        if len(remote) == len(plans):
            asyncio.run(_check_any(dict.fromkeys(remote)))
        return
    kinds = {
        (str(plan.backend.name), plan.settings.quant, plan.settings.device): plan
        for plan in plans
        if plan.server is not None
    }
    reasons = []
    for name, quant, device in sorted(kinds, key=lambda kind: "cuda" in f"{kind}"):
        found = availability(kinds[name, quant, device].backend.type, quant, device)
        if isinstance(found, Ready):
            return
        told = found.reason if isinstance(found, Unsupported) else str(found)
        reasons.append(f"backend={name} quant={quant.value}: {told}")
    cells = "the cell" if len(plans) == 1 else f"any of the {len(plans)} cells"
    raise BackendUnavailable(
        f"this machine cannot run {cells}:\n  "
        + "\n  ".join(reasons)
        + "\npython -m crossbench.doctor shows what it can run"
    )


async def _check_any(servers: Iterable[Remote]) -> None:
    """Return as soon as one of the servers answers."""
    faults = []
    for server in servers:
        try:
            await server.check()
        except TargetUnreachable as error:
            faults.append(str(error))
        else:
            return
    raise TargetUnreachable("\n".join(faults))


def longest_s(plan: CellPlan) -> float:
    """Return the seconds after which warm-up and measurement send no more requests."""
    settings = plan.settings
    warmup_s = settings.warmup_max_seconds if settings.warmup_requests else 0.0
    return warmup_s + build_stop(plan).longest_s


def check_support(plan: CellPlan) -> None:
    """Refuse a precision or a device that the backend does not support.

    Raises:
        UnsupportedQuant, UnsupportedDevice: the message lists what the backend supports.
    """
    backend: type[Backend] = plan.backend.type
    quant = plan.settings.quant
    raise_unsupported(
        str(plan.backend.name),
        find_unsupported(backend.supported, quant, plan.settings.device),
        quant,
    )


def check_task(plan: CellPlan, model: ModelFolder) -> None:
    """Refuse a load that the model cannot serve.

    Raises:
        ConfigError: the load asks a cross-encoder for embeddings.
    """
    if plan.task is Task.EMBED and model.embedding is None:
        raise ConfigError(
            f"load.task=embed: {model.name} is a cross-encoder, which scores pairs and has no "
            "embeddings. Give load.task=score, or a sentence-transformer such as "
            "model=all-minilm-l6"
        )
