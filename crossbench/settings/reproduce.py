"""The overrides that compose a stored config again: its choices, and the values that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crossbench.errors import CrossbenchError
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import quoted
from crossbench.settings.composing import CONFIG_NAME, hydra_on_conf
from crossbench.settings.identity import NOT_IDENTITY
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import composed_config
from crossbench.settings.targets import TARGET

_LEFT_OUT = NOT_IDENTITY - {"quality"}  # how a cell is watched and stored
_OF_SERVER = frozenset({"model", "backend", "quant", "device", "scheduler", "pool", "server"})
_SIGNS = frozenset("_-./")  # of words that need no quotes in Hydra's grammar


def cell_overrides(config: CellConfig) -> list[str] | None:
    """Return what differs from the defaults: the overrides that measure this cell again.

    How a cell is watched, stored and reported is left out. None if the config cannot be composed
    here: a choice is not one of conf/, it was written by another version of crossbench, or a value
    has control characters.
    """
    document = {key: node for key, node in config.document.items() if key not in _LEFT_OUT}
    try:
        with hydra_on_conf():
            overrides = _overrides(document)
    except (CrossbenchError, HydraException, OmegaConfBaseException):
        return None
    one_line = overrides is not None and all(map(str.isprintable, overrides))
    return overrides if one_line else None


def server_overrides(config: CellConfig) -> list[str] | None:
    """Return the overrides of `python -m crossbench.serve` that serve as this cell did.

    The backend is always among them. None as for `cell_overrides`, or if the cell measured a
    server that was already running.
    """
    if TARGET not in config.document.get("server", {}):
        return None
    overrides = cell_overrides(config)
    if overrides is None:
        return None
    found = [word for word in overrides if _key(word).split(".")[0] in _OF_SERVER]
    backend = [] if any(word.startswith("backend=") for word in found) else ["backend=pytorch"]
    return [*backend, *found]


def _overrides(document: Mapping[str, Any]) -> list[str] | None:
    choices = []
    for group, node in document.items():
        if not isinstance(node, Mapping) or not (conf_dir() / group).is_dir():
            continue
        choice = _choice(group, node)
        if choice is None:
            return None
        choices.append(f"{group}={choice}")
    config = _compose(tuple(choices))
    # Values without a default come first, because others may refer to them
    required = list(_changes(_unresolved(config), document, only=MISSING))
    if required:
        config = _compose((*choices, *required))
    changes = _changes(composed_config(config).document, document)
    order = list(document)
    return sorted(
        [*(choice for choice in choices if choice not in _defaults()), *required, *changes],
        key=lambda word: order.index(_key(word).split(".")[0]),
    )


def _choice(group: str, node: Mapping[str, Any]) -> str | None:
    """Return the choice of a group with the name of `node`, else the first one with its class."""
    of_class = []
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        values = OmegaConf.load(path)
        if (name := node.get("name")) and name == OmegaConf.select(values, "name"):
            return path.stem
        if TARGET in node and OmegaConf.select(values, TARGET) == node[TARGET]:
            of_class.append(path.stem)
    return next(iter(of_class), None)


def _defaults() -> list[str]:
    """Return the choices in the defaults list of config.yaml."""
    entries = OmegaConf.load(conf_dir() / f"{CONFIG_NAME}.yaml").defaults
    choices = [entry for entry in entries if not isinstance(entry, str)]
    return [f"{group}={choice}" for entry in choices for group, choice in entry.items()]


@lru_cache(maxsize=64)  # composing takes 0.3 s, and the cells of a sweep share most choices
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    return compose(CONFIG_NAME, overrides=list(overrides))


def _unresolved(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _changes(
    values: Mapping[str, Any], wanted: Mapping[str, Any], *, only: Any = None, prefix: str = ""
) -> Iterator[str]:
    """Yield an override for each of the `wanted` values that differs.

    With `only`, those of keys that have this value now.
    """
    for key, value in wanted.items():
        path, now = f"{prefix}{key}", values.get(key)
        if isinstance(value, Mapping) and isinstance(now, Mapping) and now:
            yield from _changes(now, value, only=only, prefix=f"{path}.")
        elif (key not in values or now != value) if only is None else now == only:
            sign = "" if key in values else "+"
            yield f"{sign}{path}={_text(value)}"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _text(value: Any) -> str:
    """Return a value as Hydra's grammar has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        plain = value and all(sign.isalnum() or sign in _SIGNS for sign in value)
        return value if plain else quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_text, value)) + "]"
    return str(value)
