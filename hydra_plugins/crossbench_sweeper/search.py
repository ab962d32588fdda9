"""The sweeper that searches with Optuna: `hydra/sweeper=optuna`.

Hydra imports this module at each start, so everything else is imported late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """Measures one cell after the other, each where the sampler expects the best objective.

    It works with every launcher. `sampler` is an Optuna sampler; the other values of
    conf/hydra/sweeper/optuna.yaml are read from the config.
    """

    def __init__(self, sampler: Any, **_: Any) -> None:
        self.sampler = sampler
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
        """Measure the cells of the search; `arguments` are the overrides of its command line."""
        from crossbench.sweeps.search import search

        assert self.config is not None
        assert self.launcher is not None
        return search(self.config, self.launcher, self.sampler, arguments)
