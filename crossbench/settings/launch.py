"""Start a Hydra app on conf/, with clear error messages for a config that cannot be used."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from crossbench.errors import ConfigError, CrossbenchError
from crossbench.settings.command_line import readable_arguments, take_quiet
from crossbench.settings.composing import CONFIG_NAME
from crossbench.settings.composition_errors import explain
from crossbench.settings.hydra_targets import checked_composition
from crossbench.settings.places import conf_dir
from crossbench.settings.resume import resumed_arguments
from crossbench.settings.schema import register, register_plugins
from crossbench.settings.targets import take_allowed
from crossbench.system.command import command, exit_on_os_error, exit_with_version

# Overrides of commands that measure no cell: they need no output folder
NO_CELLS = ("hydra.run.dir=.", "~hydra.callbacks.sweep")


def launch(task: Callable[[DictConfig], object], choices: Sequence[str] = ()) -> None:
    """Compose the config of the command line and run `task` on it.

    `choices` (`server=standalone`) are defaults that the command line may override.
    """
    exit_with_version(sys.argv)
    register()
    register_plugins()
    # Hydra then raises its errors instead of printing them, and we print clearer messages
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    app = hydra.main(config_path=str(conf_dir()), config_name=CONFIG_NAME, version_base="1.3")

    @functools.wraps(task)
    def run(config: DictConfig) -> object:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return task(config)  # after an exception, Hydra still runs the other cells
        try:
            with exit_on_os_error():
                return task(config)
        except CrossbenchError as error:
            sys.exit(f"crossbench: {error}")  # for an exception, Hydra would print all overrides

    with command():
        try:
            sys.argv[1:] = _arguments(sys.argv[1:], choices)
            with checked_composition():
                app(run)()
        except CrossbenchError as error:
            sys.exit(f"crossbench: {error}")
        except (HydraException, OmegaConfBaseException) as error:
            overrides = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
            sys.exit(f"crossbench: {explain(error, overrides, overrides)}")


def _arguments(typed: Sequence[str], choices: Sequence[str]) -> list[str]:
    """Return the arguments for Hydra: the choices of the command, and what was typed."""
    arguments = take_allowed(take_quiet(typed))
    if {"-m", "--multirun"} & set(arguments) and set(NO_CELLS) <= set(choices):
        raise ConfigError("this command measures no cells: leave out -m")
    given = {argument.split("=", 1)[0] for argument in arguments}
    defaults = [choice for choice in choices if choice.split("=", 1)[0] not in given]
    return readable_arguments(resumed_arguments([*defaults, *arguments]))
