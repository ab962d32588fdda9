"""The launchers of crossbench: `hydra/launcher=ray`, `submitit_local` and `submitit_slurm`.

They take the place of the plugins' own, which start all cells at once. Hydra imports this module
at each start, so everything else is imported late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class ClusterLauncher(Launcher):
    """Keeps the config of a sweep, which has the options of conf/hydra/launchers/*.yaml."""

    config: DictConfig
    hydra_context: HydraContext

    def __init__(self, **_: Any) -> None:
        """Take the options, which are read from the config."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config, self.hydra_context = config, hydra_context


class RayLauncher(ClusterLauncher):
    """Measures cells on the machines of a Ray cluster."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from crossbench.sweeps.cluster.launch import launch
        from crossbench.sweeps.cluster.ray_cluster import RayCluster
        from crossbench.sweeps.cluster.ray_nodes import RayNodes

        cluster = RayCluster(RayNodes.of(self.config))
        return launch(cluster, self.hydra_context, self.config, job_overrides, initial_job_idx)


class SubmititLauncher(ClusterLauncher):
    """Measures cells in jobs of submitit."""

    executor: str

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from crossbench.sweeps.cluster.launch import launch
        from crossbench.sweeps.cluster.submitit_jobs import SubmititJobs

        jobs = SubmititJobs.of(self.executor, self.config)
        return launch(jobs, self.hydra_context, self.config, job_overrides, initial_job_idx)


class SubmititLocalLauncher(SubmititLauncher):
    """Measures one cell after the other on this machine, each in a job of its own."""

    executor = "local"


class SubmititSlurmLauncher(SubmititLauncher):
    """Measures cells in jobs of Slurm."""

    executor = "slurm"
