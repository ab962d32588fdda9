"""Which launchers and which of their settings are refused, and how many cells each gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.stored_plan import PlannedRun, StoredPlan
from crossbench.sweeps.conduct import batches
from crossbench.sweeps.launchers import (
    JOBLIB,
    LOCAL,
    ONE_BY_ONE,
    RAY,
    SLURM,
    Portion,
    check_launcher,
    portion_of,
)
from tests.helpers.places import REPO
from tests.helpers.without_plugins import run_without

FILES = {JOBLIB: "joblib", RAY: "ray", LOCAL: "submitit_local", SLURM: "submitit_slurm"}
NONE = {"address": None, "hosts": None, "resources": None, "tries": 2}


def config(
    target: str, cluster: dict[str, Any] | None = None, allow_shared: Any = False, **options: Any
) -> DictConfig:
    """The config of a sweep with our own config of a launcher, changed by `options`."""
    launcher: Any = {"_target_": target}
    if target in FILES:
        path = REPO / "conf" / "hydra" / "launchers" / f"{FILES[target]}.yaml"
        launcher = OmegaConf.to_container(OmegaConf.load(path))
    hydra = {"launcher": {**launcher, **options}, "sweep": {"dir": "outputs"}}
    cluster = {**NONE, **(cluster or {})}
    return OmegaConf.create({"hydra": hydra, "cluster": cluster, "allow_shared": allow_shared})


@pytest.mark.parametrize("target", [ONE_BY_ONE, *FILES])
def test_our_own_settings_measure_one_cell_a_machine(target: str) -> None:
    check_launcher(config(target))


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (JOBLIB, {"n_jobs": 4}, "joblib: n_jobs=4 would measure several cells at a time"),
        (JOBLIB, {"n_jobs": -1}, "give hydra.launcher.n_jobs=1"),
        (SLURM, {"exclusive": False}, "submitit_slurm: exclusive=False lets Slurm run several"),
        ("hydra_plugins.other.Launcher", {}, "crossbench does not know this launcher"),
    ],
)
def test_cells_side_by_side_on_one_machine_are_refused_unless_they_are_allowed(
    target: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        check_launcher(config(target, **options))
    assert "give allow_shared=true, and every report says so" in str(refused.value)
    check_launcher(config(target, allow_shared=True, **options))


def test_slurm_may_run_one_job_after_the_other_on_shared_machines() -> None:
    check_launcher(config(SLURM, exclusive=False, array_parallelism=1))


@pytest.mark.parametrize(
    ("target", "cluster", "options", "message"),
    [
        (ONE_BY_ONE, {"hosts": ["a"]}, {}, "has no effect with hydra/launcher=basic"),
        (JOBLIB, {"resources": {"gpu": 1}}, {}, "give hydra/launcher=ray or submitit_local or"),
        (SLURM, {"address": "a:1"}, {}, "give hydra/launcher=ray"),
        (RAY, {"hosts": "a"}, {}, "cluster.hosts must be a list of names or addresses, got 'a'"),
        (RAY, {"resources": {"gpu": 0}}, {}, "cluster.resources must have amounts by name"),
        (RAY, {"resources": "gpu"}, {}, "cluster.resources must have amounts by name"),
        (SLURM, {"resources": {"tpu": 1}}, {}, "submitit knows no tpu: give gpu alone"),
        (RAY, {"tries": 0}, {}, "cluster.tries must be a positive whole number, got 0"),
        (SLURM, {}, {"nodes": 2}, "hydra.launcher.nodes=2: a cell is measured by one task"),
        (SLURM, {}, {"tasks_per_node": 2}, "give hydra.launcher.tasks_per_node=1"),
    ],
)
def test_values_that_a_launcher_cannot_use_are_refused(
    target: str, cluster: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_launcher(config(target, cluster, allow_shared=True, **options))


def test_allow_shared_is_a_truth_value() -> None:
    with pytest.raises(ConfigError, match="allow_shared must be true or false, got 'yes'"):
        check_launcher(config(JOBLIB, allow_shared="yes"))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (ONE_BY_ONE, [[0], [1], [3]]),  # 2 has a result
        (JOBLIB, [[0, 1], [3]]),
        (RAY, [[0, 1, 2, 3]]),
    ],
)
def test_a_launcher_gets_a_cell_or_a_block_or_the_whole_sweep(
    target: str, expected: list[list[int]], tmp_path: Path
) -> None:
    runs = tuple(PlannedRun(cell, block) for block in (1, 2) for cell in (0, 1))
    plan = StoredPlan((), "/", ("a", "b"), runs)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "result.json").touch()
    portion = portion_of({"_target_": target})
    assert list(batches(plan, tmp_path, portion)) == expected
    assert portion is not Portion.CELL or target == ONE_BY_ONE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "ray", "submitit_local"])
def test_without_its_package_a_launcher_says_what_to_install(name: str, tmp_path: Path) -> None:
    missing = ("hydra_plugins", "ray", "submitit", "optuna")
    sweep = ("-m", "backend=noop", "batch=4,8", f"hydra/launcher={name}")
    done = run_without(missing, *sweep, folder=tmp_path)
    assert done.returncode == 1
    told = f"crossbench: hydra/launcher={name} needs a package that is not installed here"
    assert done.stderr.startswith(told)
    assert "pip install 'crossbench[cluster]'" in done.stderr
