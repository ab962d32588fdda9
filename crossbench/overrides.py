"""What the command line asks for: the points of a sweep, and a clear word where it cannot be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from crossbench.config import conf_dir, to_plain
from crossbench.errors import ConfigError, CrossbenchError

CONFIG_NAME = "config"
REPEAT = "repeat"


def sweep_points(overrides: Sequence[str]) -> list[list[str]]:
    """Each cell's overrides, in the order in which Hydra's basic sweeper runs them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(point) for batch in batches for point in batch]


def sweeper_params(swept: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """A study's `hydra.sweeper.params` as Hydra's sweeper is to have them, beside what is `given`.

    Hydra lets the command line win over a parameter that is spelt alike; `++batch=8` beside a
    swept `batch` would otherwise multiply with it, into cells that are all the same. A swept
    `repeat` comes first, wherever it was given, as the first varies least often: every cell of a
    block is measured before any is measured again, so that the machine's drift falls on all.
    """
    parsed = OverridesParser.create().parse_overrides(list(given))
    keys = {override.key_or_group for override in parsed}
    params = {key: str(value) for key, value in swept.items() if key.lstrip("+") not in keys}
    blocks = dict(
        str(override.input_line).split("=", 1)
        for override in parsed
        if override.key_or_group == REPEAT and override.is_sweep_override()
    )
    blocks |= {key: value for key, value in params.items() if key.lstrip("+") == REPEAT}
    return blocks | params


def swept_keys(points: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The keys that do not have the same value in every cell, as a config has them."""
    values: dict[str, set[str]] = {}
    for point in points:
        for word in point:
            key, _, value = word.partition("=")
            values.setdefault(key.lstrip("+"), set()).add(value)
    return tuple(key for key, found in values.items() if len(found) > 1)


def check_points(
    points: Sequence[Sequence[str]], check: Callable[[Mapping[str, Any]], object]
) -> None:
    """Compose every cell before the first one runs, so that a typo costs no measurement.

    A point whose values `check` refuses fails its own cell; where it refuses all, none is started.

    Raises:
        ConfigError: the first point that does not compose, and what exists instead; or why no
            point can be measured.
    """
    refused = []
    for point in points:
        try:
            config = compose(CONFIG_NAME, overrides=list(point))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error)) from error
        try:
            check(to_plain(config))
        except CrossbenchError as error:
            refused.append(str(error))
    if refused and len(refused) == len(points):
        raise ConfigError("\n".join(dict.fromkeys(refused)))


def explain(error: Exception) -> str:
    """Hydra's word on a config that does not compose, with the keys that exist beside."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    words = "\n".join(dict.fromkeys(lines))
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in )", f"{error}\n{cause}")
    if not found:
        return words
    path = re.search(r"full_key: (\S+)", f"{cause}")
    key = path[1] if path else found[1]
    parent, _, name = key.rpartition(".")
    node = _default_config()
    for part in filter(None, parent.split(".")):
        node = node[part]
    existing = sorted(str(item) for item in node) if isinstance(node, DictConfig) else []
    near = difflib.get_close_matches(name, existing, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    place = f"under {parent}" if parent else "at the root"
    return f"there is no key {key}.{hint} What exists {place}: {', '.join(existing)}"


def _default_config() -> DictConfig:
    if GlobalHydra.instance().is_initialized():
        return compose(CONFIG_NAME)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(CONFIG_NAME)
