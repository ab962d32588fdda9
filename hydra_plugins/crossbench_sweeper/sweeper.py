"""The sweeper of crossbench: `hydra/sweeper: crossbench`, the default of `-m`.

Hydra imports this module at each start, so everything else is imported late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class CrossbenchSweeper(Sweeper):
    """Runs the plan that `SweepCallback` has stored in the folder of the sweep, block by block.

    It works with every launcher. `params` are the axes of a study (`hydra.sweeper.params`).
    """

    def __init__(self, params: Mapping[str, str] | None = None) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from hydra.core.plugins import Plugins

        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Measure the cells of the sweep; `arguments` are the overrides of its command line."""
        from crossbench.sweeps.conduct import conduct

        assert self.config is not None
        assert self.launcher is not None
        return conduct(self.config, self.launcher, arguments)
