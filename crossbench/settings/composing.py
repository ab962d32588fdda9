"""Compose configs from conf/, inside a Hydra command or outside of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from crossbench.settings.places import conf_dir
from crossbench.settings.schema import register

CONFIG_NAME = "config"


@contextlib.contextmanager
def hydra_on_conf() -> Iterator[None]:
    """Use the Hydra of the command that runs, or one on our conf/ if there is none."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield
