"""Check what Hydra itself builds from a config: callbacks, launcher, sweeper, log handlers.

Hydra builds these before it calls us, and has no hook before that, so its loader of configs is
replaced by one that checks each config as soon as it is composed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crossbench.errors import ConfigError
from crossbench.settings.targets import (
    VARIABLE,
    allowed_class,
    check_name,
    check_names,
    named_targets,
)

_HYDRA = ("hydra", "hydra_plugins")
_SAMPLERS = "optuna.samplers"
_LOGGING = ("logging", "colorlog")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
# Variables that decide which code a process loads, or what a config may name
_CODE_VARIABLES = re.compile(rf"LD_.*|DYLD_.*|PYTHON.*|HYDRA_INSTANTIATE_.*|{VARIABLE}")


@contextlib.contextmanager
def checked_composition() -> Iterator[None]:
    """Have every config checked when Hydra has composed it, before anything is built from it."""
    original = ConfigLoaderImpl.load_configuration

    def load_configuration(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        config = original(self, *args, **kwargs)
        check_composed(config)
        return config

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = original  # type: ignore[method-assign]


def check_composed(config: DictConfig) -> None:
    """Check every class that a composed config names, Hydra's own node included.

    Components are checked again with their values resolved, when `Component.of` reads them.

    Raises:
        ConfigError: a class is not allowed; the message has what to do.
    """
    for key, target in named_targets(OmegaConf.to_container(config, resolve=False), ""):
        if not key.startswith("hydra.") and not _is_interpolated(target):
            check_name(key, target)
    hydra = config.hydra
    for name in ("launcher", "sweeper"):  # Hydra takes only plugins for these
        check_names(f"hydra.{name}", _resolved(hydra[name]), (*_HYDRA, _SAMPLERS))
    for key, target in named_targets(_resolved(hydra.callbacks), "hydra.callbacks"):
        allowed_class(key, target, _HYDRA)
    for name in ("job_logging", "hydra_logging"):
        _check_logging(f"hydra.{name}", _resolved(hydra[name]))
    for name in hydra.job.env_set:
        if _CODE_VARIABLES.fullmatch(str(name)):
            raise ConfigError(
                f"hydra.job.env_set.{name}: a config cannot set this variable, because it decides "
                "which code runs: set it in the shell"
            )


def _resolved(node: Any) -> Any:
    """Return a node as plain values; those that cannot be resolved yet stay as they are written."""
    if isinstance(node, ListConfig):
        return [_value(node, number) for number in range(len(node))]
    if isinstance(node, DictConfig):
        return {str(key): _value(node, key) for key in node}
    return node


def _value(node: Any, key: Any) -> Any:
    if OmegaConf.is_missing(node, key):
        return None
    try:
        return _resolved(node[key])
    except OmegaConfBaseException:
        return str(node._get_node(key)._value())


def _check_logging(key: str, node: Any) -> None:
    """Check the classes and factories that logging.config would call for a mapping of it."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            _check_logging(f"{key}[{number}]", item)
    elif isinstance(node, dict):
        for name, value in node.items():
            here = f"{key}.{name}"
            if name in ("()", "class"):
                allowed_class(here, value, _LOGGING)
            _check_logging(here, value)
    elif isinstance(node, str) and node.startswith("ext://") and node not in _STREAMS:
        raise ConfigError(f"{key} = {node!r} imports code: give {' or '.join(_STREAMS)}")
    elif isinstance(node, str) and node.startswith("${") and node.endswith("}"):
        raise ConfigError(f"{key} = {node} cannot be resolved: write the value itself")


def _is_interpolated(target: Any) -> bool:
    return isinstance(target, str) and "${" in target
