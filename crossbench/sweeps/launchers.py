"""Hydra's launchers: how many cells each gets at a time, and which settings are refused.

Two cells that are measured on the same cores at the same time slow each other down, so a launcher
that would do that is refused unless `allow_shared=true`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.cell_settings import to_plain

_OURS = "hydra_plugins.crossbench_launchers.launchers."
# Runs the cells one after the other, in this process
ONE_BY_ONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
RAY = f"{_OURS}RayLauncher"
LOCAL = f"{_OURS}SubmititLocalLauncher"
SLURM = f"{_OURS}SubmititSlurmLauncher"
_PACKAGES = {
    JOBLIB: "hydra_plugins.hydra_joblib_launcher",
    RAY: "hydra_plugins.hydra_ray_launcher",
    LOCAL: "submitit",
    SLURM: "submitit",
}
_NAMES = {JOBLIB: "joblib", RAY: "ray", LOCAL: "submitit_local", SLURM: "submitit_slurm"}
# What each launcher does with the keys of `cluster`, apart from `tries`
_PLACEMENT = {RAY: {"address", "hosts", "resources"}, LOCAL: {"resources"}, SLURM: {"resources"}}
_GPU = "gpu"


class Portion(StrEnum):
    """How many runs a launcher gets at a time."""

    CELL = "cell"
    BLOCK = "block"
    SWEEP = "sweep"  # it places the blocks itself


def portion_of(launcher: Mapping[str, Any]) -> Portion:
    """Return how many runs the launcher with this config gets at a time."""
    match launcher["_target_"]:
        case target if target == ONE_BY_ONE:
            return Portion.CELL
        case target if target in (RAY, LOCAL, SLURM):
            return Portion.SWEEP
        case _:
            return Portion.BLOCK


def measures_elsewhere(launcher: Mapping[str, Any]) -> bool:
    """Return whether cells are measured on other machines, which may have what this one lacks."""
    return launcher["_target_"] in (RAY, SLURM)


def check_launcher(config: DictConfig) -> None:
    """Refuse a launcher that would measure several cells on one machine at the same time.

    Raises:
        ConfigError: that, its package is missing, or `cluster` has values that it cannot use.
    """
    shared = config.allow_shared
    if not isinstance(shared, bool):
        raise ConfigError(
            f"allow_shared must be true or false, got {shared!r}: give allow_shared=true"
        )
    launcher = to_plain(config.hydra.launcher)
    target = str(launcher["_target_"])
    _check_installed(target)
    _check_cluster(config, target)
    if target == SLURM:
        _check_one_task(launcher)
    if (why := _shares_a_machine(target, launcher)) and not shared:
        raise ConfigError(
            f"hydra/launcher={_NAMES.get(target, target)}: {why}. Cells that are measured at the "
            "same time on one machine slow each other down, so their figures would be wrong. If "
            "that is what you want to measure, give allow_shared=true, and every report says so"
        )


def _shares_a_machine(target: str, launcher: Mapping[str, Any]) -> str:
    """Say why the launcher would measure several cells on one machine at once; empty if not."""
    if target in (ONE_BY_ONE, RAY, LOCAL):
        return ""
    if target == JOBLIB:
        jobs = launcher.get("n_jobs")
        if jobs == 1:
            return ""
        return (
            f"n_jobs={jobs} would measure several cells at a time on the cores of this machine: "
            "leave it out, or give hydra.launcher.n_jobs=1"
        )
    if target == SLURM:
        exclusive = launcher.get("exclusive")
        if exclusive or launcher.get("array_parallelism") == 1:
            return ""
        return (
            f"exclusive={exclusive} lets Slurm run several jobs on one machine: leave it out, or "
            "give hydra.launcher.exclusive=true"
        )
    return (
        "crossbench does not know this launcher, which may run several cells at a time on one "
        f"machine: give hydra/launcher={', '.join(['basic', *_NAMES.values()])}"
    )


def _check_installed(target: str) -> None:
    library = _PACKAGES.get(target)
    if library is None or importlib.util.find_spec(library) is not None:
        return
    raise ConfigError(
        f"hydra/launcher={_NAMES[target]} needs a package that is not installed here: install it "
        "with python -m pip install 'crossbench[cluster]', or in a checkout with "
        "python -m pip install -c constraints.txt -e '.[cluster]'"
    )


def _check_cluster(config: DictConfig, target: str) -> None:
    """Refuse values of `cluster` that are wrong, or that the launcher has no use for."""
    cluster = config.cluster
    tries = cluster.tries
    if isinstance(tries, bool) or not isinstance(tries, int) or tries < 1:
        raise ConfigError(
            f"cluster.tries must be a positive whole number, got {tries!r}: give cluster.tries=2"
        )
    usable = _PLACEMENT.get(target, set())
    for key in ("address", "hosts", "resources"):
        if cluster[key] is not None and key not in usable:
            having = [name for one, name in _NAMES.items() if key in _PLACEMENT.get(one, set())]
            raise ConfigError(
                f"cluster.{key}={cluster[key]} has no effect with hydra/launcher="
                f"{_NAMES.get(target, 'basic')}: leave it out, or give "
                f"hydra/launcher={' or '.join(having)}"
            )
    hosts = cluster.hosts
    if hosts is not None and (not OmegaConf.is_list(hosts) or not len(hosts)):
        raise ConfigError(
            f"cluster.hosts must be a list of names or addresses, got {hosts!r}: give for example "
            "cluster.hosts=[gpu-1,gpu-2]"
        )
    resources = resources_of(config)
    if target in (LOCAL, SLURM) and (others := set(resources) - {_GPU}):
        raise ConfigError(
            f"cluster.resources={cluster.resources}: submitit knows no "
            f"{', '.join(sorted(others))}: give gpu alone, or with Slurm "
            "hydra.launcher.constraint=... or hydra.launcher.gres=..."
        )


def resources_of(config: DictConfig) -> dict[str, float]:
    """Return `cluster.resources`: amounts by name; empty for null.

    Raises:
        ConfigError: it is no mapping of names to positive numbers.
    """
    given = config.cluster.resources
    if given is None:
        return {}
    plain = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    good = isinstance(plain, dict) and all(
        isinstance(amount, int | float) and not isinstance(amount, bool) and amount > 0
        for amount in plain.values()
    )
    if not good:
        raise ConfigError(
            f"cluster.resources must have amounts by name, got {plain!r}: give for example "
            "'cluster.resources={gpu: 1}'"
        )
    assert isinstance(plain, dict)
    return {str(name): float(amount) for name, amount in plain.items()}


def _check_one_task(launcher: Mapping[str, Any]) -> None:
    """Refuse a job of Slurm that would measure the same cell several times at once."""
    for key in ("nodes", "tasks_per_node"):
        if launcher.get(key) != 1:
            raise ConfigError(
                f"hydra.launcher.{key}={launcher.get(key)}: a cell is measured by one task on one "
                f"machine: leave it out, or give hydra.launcher.{key}=1"
            )
