"""The sweeper of crossbench: `hydra/sweeper: crossbench`, the default of `-m`.

Hydra imports this module at each start, so everything else is imported late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._with_launcher import SweeperWithLauncher


class CrossbenchSweeper(SweeperWithLauncher):
    """Runs the plan that `SweepCallback` has stored in the folder of the sweep, block by block.

    `params` are the axes of a study (`hydra.sweeper.params`).
    """

    def __init__(self, params: Mapping[str, str] | None = None) -> None:
        """Take the axes, which are read from the config."""

    def sweep(self, arguments: list[str]) -> Any:
        """Measure the cells of the sweep; `arguments` are the overrides of its command line."""
        from crossbench.sweeps.conduct import conduct

        return conduct(self.config, self.launcher, arguments)
