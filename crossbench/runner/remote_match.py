"""Whether a running server is the one that a cell of a sweep needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from crossbench.errors import ConfigError, ResultError
from crossbench.models.folder import ModelFolder
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.plan import OF_OUR_SERVER, CellPlan
from crossbench.settings.sweep_state import read_state


def swept_keys_of(folder: Path) -> tuple[str, ...]:
    """Return the keys that the sweep of a cell's folder varies; empty for a cell on its own."""
    try:
        return read_state(folder.parent).axes
    except ResultError:
        return ()


def check_remote(
    plan: CellPlan, swept: Sequence[str], info: pb.ServerInfo, model: ModelFolder
) -> None:
    """Refuse a cell that needs another server than the one that runs already.

    Only the keys that the sweep varies count: other differences are told as warnings.

    Raises:
        ConfigError: the server has another model, backend, precision, scheduler or pool, or does
            not tell the value of a key that the sweep varies.
    """
    if plan.server is not None or plan.of_others:
        return
    if faults := list(_faults(plan, swept, info, model)):
        raise ConfigError(
            f"this cell needs another server: {'; '.join(faults)}. A server that runs already "
            "cannot be changed: run one sweep for each server, with only its own values"
        )


def _faults(
    plan: CellPlan, swept: Sequence[str], info: pb.ServerInfo, model: ModelFolder
) -> Iterator[str]:
    served = info.models[0]
    told = {"backend": served.backend, "quant": served.quant, "scheduler": info.scheduler}
    groups = {"model", *OF_OUR_SERVER}
    for key in swept:
        group = key.partition(".")[0]
        wanted = plan.config.texts.get(key)
        if group not in groups or wanted is None:
            continue
        if group == "model":
            if served.digest != model.digest:
                yield f"{key}={wanted}, but it serves {served.name}"
        elif key not in told:
            yield f"the sweep varies {key}, which it does not tell"
        elif told[key] != wanted:
            yield f"{key}={wanted}, but it has {key}={told[key]}"
