"""Hydra's hooks around a run, of several cells or of one: its folder, its start and its end.

State lives in `<sweep>/sweep.json`, so that every launcher's process finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, read_write
from omegaconf.errors import OmegaConfBaseException

from crossbench.dashboard.process import JOURNAL_FILE, Dashboard
from crossbench.errors import CrossbenchError
from crossbench.events import SweepStarted
from crossbench.runner.checks import check_config
from crossbench.settings.composition_errors import explain
from crossbench.settings.overrides import (
    check_points,
    check_study,
    sweep_points,
    sweeper_params,
    swept_keys,
)
from crossbench.settings.plan import composed_config
from crossbench.settings.run import RunSettings, run_settings
from crossbench.sweep.child import waiting_child
from crossbench.sweep.finish import EXIT_FAILED, finish_sweep
from crossbench.sweep.folder import (
    STATE_FILE,
    SweepState,
    TakenFolder,
    take_output_folder,
)
from crossbench.sweep.services import (
    console,
    dashboard_url,
    make_tracking,
    sweep_journal,
)
from crossbench.system.command import denied

ONE_BY_ONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # cells, in this process


class SweepCallback(Callback):
    """Hydra's hooks around a run, of several cells or of one.

    Each holds its folder until this process ends.
    """

    def __init__(self) -> None:
        self._dashboard: Dashboard | None = None
        self._taken: TakenFolder | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A launcher copies the hooks to other processes, which neither hold nor end anything."""
        return {"_dashboard": None, "_taken": None}

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            self._taken = start_cell(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with _exit_on_error():
            self._taken, self._dashboard = start_sweep(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        waiting_child.close()
        with _exit_on_error():
            folder = Path(config.hydra.sweep.dir)
            status = finish_sweep(folder, make_tracking(_run_settings(config), folder))
        if self._dashboard is not None:
            self._dashboard.close()
        if status:
            sys.exit(status)


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """Hydra turns a hook's exception into a warning and goes on; what must stop it is an exit."""
    try:
        yield
    except CrossbenchError as error:
        sys.exit(f"crossbench: {error}")
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"crossbench: {explain(error)}")
    except OSError as error:
        sys.exit(f"crossbench: {denied(error)}")
    except Exception:
        console.print_exception()
        sys.exit(EXIT_FAILED)


def start_cell(config: DictConfig) -> TakenFolder:
    """Check a lone cell and take its folder, before Hydra makes it.

    Raises:
        CrossbenchError: the cell cannot be measured, or the folder cannot be had.
    """
    check_study(config)
    HydraConfig.instance().set_config(config)  # for what the cell's values take from it
    check_config(composed_config(config))
    return take_output_folder(config, RunMode.RUN)


def start_sweep(config: DictConfig) -> tuple[TakenFolder, Dashboard]:
    """Compose every cell once, take the sweep's folder, open its parent run and its dashboard.

    Raises:
        ConfigError: a cell does not compose, no cell has values that can be used, two cells are
            the same, or the folder cannot be had; nothing was started.
    """
    given = list(config.hydra.overrides.task)
    check_study(config)
    params = {str(key): str(value) for key, value in (config.hydra.sweeper.params or {}).items()}
    swept = sweeper_params(params, given)
    with read_write(config):
        config.hydra.sweeper.params = swept  # the sweeper that Hydra makes next reads it here
    overrides = [*(f"{key}={value}" for key, value in swept.items()), *given]
    points = sweep_points(overrides)
    check_points(points, check_config, given, params)
    taken = take_output_folder(config, RunMode.MULTIRUN)
    folder = taken.path
    if config.hydra.launcher._target_ == ONE_BY_ONE:
        waiting_child.start(folder)
    run = _run_settings(config)
    tracking = make_tracking(run, folder)
    dashboard: Dashboard = run.dashboard.build()
    dashboard.start(folder / JOURNAL_FILE)
    # While it comes up; it is up before the first cell starts
    parent = tracking.attempt(lambda tracker: tracker.start_sweep(folder.name, overrides))
    url = dashboard_url(dashboard)
    state = SweepState(folder.name, len(points), parent, os.getpid(), url, swept_keys(points))
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)) + "\n", "utf-8")
    sweep_journal(folder, url).write(SweepStarted(folder.name, len(points)))
    return taken, dashboard


def _run_settings(config: DictConfig) -> RunSettings:
    return run_settings(config, list(config.hydra.overrides.task))
