"""Which classes a config may name with `_target_`: those of crossbench, and those a user allows.

A config may come from a stranger: a folder for `--config-dir`, a stored sweep. So only the command
line (`allow_targets=[bag.]`) and the environment can allow more, never a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.utils import get_class

from crossbench.errors import ConfigError

ALLOW_TARGETS = "allow_targets"
VARIABLE = "CROSSBENCH_ALLOW_TARGETS"  # child processes inherit it
TARGET = "_target_"
OWN = ("crossbench",)
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def take_allowed(arguments: Sequence[str]) -> list[str]:
    """Remove `allow_targets=[...]` from a command line, and allow its names in this process.

    Returns the other arguments. The child processes of this process inherit what is allowed.

    Raises:
        ConfigError: the value is not a list of names of packages, modules or classes.
    """
    given = [word for word in arguments if _key(word) == ALLOW_TARGETS]
    names = [name for word in given for name in _names(word.partition("=")[2], word)]
    if given:
        os.environ[VARIABLE] = ",".join([*_allowed(), *names])
    return [word for word in arguments if word not in given]


def refuse_allowing(arguments: Sequence[str], source: str) -> None:
    """Refuse `allow_targets` among arguments that were read from the file `source`.

    Raises:
        ConfigError: it is there.
    """
    if found := [word for word in arguments if _key(word) == ALLOW_TARGETS]:
        raise ConfigError(
            f"{source} has {found[0]}: a file cannot allow classes. If you trust it, give "
            f"{found[0]} on the command line"
        )


def check_name(key: str, target: Any, more: Sequence[str] = ()) -> str:
    """Return `target`, the value of `key`, if its name begins with an allowed one.

    Nothing is imported. `more` are packages that are allowed here besides crossbench.

    Raises:
        ConfigError: it is not an allowed name.
    """
    if not isinstance(target, str) or _NAME.fullmatch(target) is None:
        raise ConfigError(
            f"{key} must be the dotted name of a class, got {target!r}: give for example "
            "crossbench.backends.noop.NoopBackend"
        )
    if not _is_within(target, (*OWN, *more, *_allowed())):
        raise ConfigError(
            f"{key} names {target}, which is not a class of crossbench, so it is not "
            f"loaded. If you trust this config and that code, give {ALLOW_TARGETS}="
            f"[{target.partition('.')[0]}.] on the command line, or set {VARIABLE}"
        )
    return target


def allowed_class(key: str, target: Any, more: Sequence[str] = ()) -> type:
    """Import and return the class that `target`, the value of `key`, names.

    Raises:
        ConfigError: the name is not allowed, cannot be imported, or leads to something else than a
            class that is itself defined in an allowed module.
    """
    name = check_name(key, target, more)
    try:
        found = get_class(name)
    except Exception as error:  # Hydra wraps every exception of the import
        raise ConfigError(f"{key} names {name}, which cannot be imported: {error}") from error
    # A name within crossbench may lead out of it: crossbench.cli.sys, or what a module imports
    if not _is_within(found.__module__, (*OWN, *more, *_allowed())):
        raise ConfigError(
            f"{key} names {name}, which is {found.__module__}.{found.__qualname__} and no "
            "class of crossbench, so it is not loaded: name the class where it is defined"
        )
    return found


def check_names(key: str, node: Any, more: Sequence[str] = ()) -> None:
    """Check every `_target_` in a plain config, however deep, without importing anything.

    Raises:
        ConfigError: see `check_name`.
    """
    for path, target in named_targets(node, key):
        check_name(path, target, more)


def named_targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the key (`backend._target_`) and the value of every `_target_` in `node`."""
    if isinstance(node, Mapping):
        if TARGET in node:
            yield f"{key}.{TARGET}", node[TARGET]
        for name, value in node.items():
            yield from named_targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from named_targets(value, f"{key}[{number}]")


def _allowed() -> tuple[str, ...]:
    """Return what the user allows."""
    value = os.environ.get(VARIABLE, "")
    return tuple(_names(value, f"{VARIABLE}={value}")) if value.strip() else ()


def _names(value: str, given: str) -> list[str]:
    """Return the names in `[bag., mine.loads]`, with or without brackets and quotes."""
    text = value.strip().strip("'\"").removeprefix("[").removesuffix("]")
    names = [name.strip().strip("'\"").strip().removesuffix(".") for name in text.split(",")]
    if not all(_NAME.fullmatch(name) for name in names):
        raise ConfigError(
            f"{given}: it must be a list of packages, modules or classes: give for example "
            f"{ALLOW_TARGETS}=[bag.]"
        )
    return names


def _is_within(name: str, allowed: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def _key(argument: str) -> str:
    return argument.partition("=")[0].strip().lstrip("+~")
