"""The overrides that give a part of a config again: its choices, and the values that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import quoted
from crossbench.settings.component import choice_values
from crossbench.settings.places import conf_dir
from crossbench.settings.targets import TARGET

# What a server and the client of a load must agree on, beside the backend and its precision
SERVER_GROUPS = ("model", "backend", "scheduler", "pool")
DEFAULTS = ("scheduler=dynamic", "pool=threads")  # short commands leave them out


def server_overrides(config: CellConfig) -> list[str] | None:
    """Return the overrides of `python -m crossbench.serve` that serve as this cell did.

    None if a choice is not one of conf/, or the cell measured a server that was already running.
    """
    document = config.document
    if TARGET not in document.get("server", {}):
        return None
    found = []
    for group in SERVER_GROUPS:
        overrides = choice_overrides(group, document[group])
        if overrides is None:
            return None
        found += overrides
        if group == "backend":
            found.append(f"quant={config.value('quant')}")
    if (device := config.value("device")) != "auto":
        found.append(f"device={device}")
    return [word for word in found if word not in DEFAULTS]


def choice_overrides(group: str, node: Mapping[str, Any]) -> list[str] | None:
    """Return the overrides that choose `node` in a group of conf/; None if no choice has its class.

    Of several choices of this class, it is the one with the fewest values to change.
    """
    found = []
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        try:
            values = choice_values(group, path.stem)
        except OmegaConfBaseException:  # its values depend on those of other groups
            continue
        if values.get(TARGET) == node.get(TARGET):
            changed = [f"{group}={path.stem}", *_changes(group, values, node)]
            found.append((len(changed), values.get("name") != node.get("name"), changed))
    return min(found)[2] if found else None


def _changes(key: str, values: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        path = f"{key}.{name}"
        if isinstance(value, Mapping) and isinstance(values.get(name), Mapping):
            yield from _changes(path, values[name], value)
        elif name not in values or values[name] != value:
            yield f"{path}={_text(value)}"


def _text(value: Any) -> str:
    """Return a value as Hydra's grammar has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quoted(value) if set(value) - _PLAIN else value
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_text, value)) + "]"
    return str(value)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")
