"""The sweeper that searches with Optuna: `hydra/sweeper=optuna`.

Hydra imports this module at each start, so everything else is imported late.
"""

from __future__ import annotations

from typing import Any

from ._with_launcher import SweeperWithLauncher


class SearchSweeper(SweeperWithLauncher):
    """Measures one cell after the other, each where the sampler expects the best objective.

    `sampler` is an Optuna sampler; the other values of conf/hydra/optuna.yaml are read from the
    config.
    """

    def __init__(self, sampler: Any, **_: Any) -> None:
        self.sampler = sampler

    def sweep(self, arguments: list[str]) -> Any:
        """Measure the cells of the search; `arguments` are the overrides of its command line."""
        from crossbench.sweeps.search import search

        return search(self.config, self.launcher, self.sampler, arguments)
