"""Hydra callbacks at the start and the end of a run, which may be one cell or a sweep.

The state of a sweep is in `<sweep>/sweep.json`, where the processes of every launcher find it.
Imports are late, so that a typo is refused quickly.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from crossbench.errors import CrossbenchError
from crossbench.settings.blocks import SEARCHER
from crossbench.settings.composition_errors import explain
from crossbench.settings.run import run_settings
from crossbench.sweeps.launchers import RAY, check_launcher
from crossbench.sweeps.plan import SweepPlan, plan_sweep
from crossbench.system.command import os_error_message
from crossbench.system.stop_signals import finish_first

if TYPE_CHECKING:
    from crossbench.dashboard.process import Dashboard
    from crossbench.sweeps.folder import TakenFolder


class SweepCallback(Callback):
    """Hydra callbacks of a run. The run's folder stays locked until this process ends."""

    def __init__(self) -> None:
        self._dashboard: Dashboard | None = None
        self._taken: TakenFolder | None = None
        self._missing = 0  # runs to be measured

    def __getstate__(self) -> dict[str, Any]:
        """Leave out folder and dashboard: a launcher copies the callback to other processes."""
        return {"_dashboard": None, "_taken": None, "_missing": 0}

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            from crossbench.sweeps.start import start_cell

            self._taken = start_cell(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            check_launcher(config)
            plan = _plan(config)
            if config.hydra.launcher._target_ == RAY:
                from crossbench.sweeps.cluster.ray_nodes import RayNodes

                RayNodes.of(config).connect()  # a cluster that is not there is refused at once
            from crossbench.sweeps.start import start_sweep

            started = start_sweep(config, plan)
            self._taken, self._dashboard = started.taken, started.dashboard
            self._missing = started.missing

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            from crossbench.sweeps.child import waiting_child
            from crossbench.sweeps.finish import finish_sweep
            from crossbench.sweeps.services import make_tracking

            waiting_child.close()
            folder = Path(config.hydra.sweep.dir)
            run = run_settings(config, list(config.hydra.overrides.task))
            try:
                with finish_first():
                    status = finish_sweep(folder, make_tracking(run, folder))
            finally:
                if self._dashboard is not None:
                    self._dashboard.close()
        # A resumed sweep without missing runs has done all that it can do
        if status and self._missing:
            sys.exit(status)


def _plan(config: DictConfig) -> SweepPlan:
    if config.hydra.sweeper._target_ != SEARCHER:
        return plan_sweep(config)
    from crossbench.sweeps.search_plan import plan_search

    return plan_search(config)


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """Exit with an error message: Hydra only warns about an exception of a callback and goes on."""
    try:
        yield
    except CrossbenchError as error:
        sys.exit(f"crossbench: {error}")
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"crossbench: {explain(error)}")
    except OSError as error:
        sys.exit(f"crossbench: {os_error_message(error)}")
    except Exception:
        from crossbench.sweeps.finish import EXIT_FAILED
        from crossbench.sweeps.services import console

        console.print_exception()
        sys.exit(EXIT_FAILED)
