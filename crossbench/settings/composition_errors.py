"""Why a configuration does not compose, in words that name what exists and what to give."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crossbench.settings.command_line import in_shell, quoted, this_command
from crossbench.settings.places import conf_dir

CONFIG_NAME = "config"


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra's sweeper reads them; `glob(...)` knows the choices of its group.

    Raises:
        HydraException: one of them cannot be read.
    """
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def is_group(key: str) -> bool:
    """Whether `key` is a folder of conf/, so that its values are choices. Hydra must be running."""
    loader = GlobalHydra.instance().config_loader()
    return bool(loader.get_group_options(key, results_filter=ObjectType.CONFIG))


def explain(error: Exception, overrides: Sequence[str] = (), given: Sequence[str] = ()) -> str:
    """Hydra's word on a config that does not compose, with the keys that exist beside.

    `overrides` are that config's. `given` are those of the command line: a key that only some of
    the choices that it sweeps over have is told with a command for either.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    words = "\n".join(dict.fromkeys(lines))
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'$", lines[0]):
        key, value = several[1], several[2]
        return (
            f"{key}={value} has several values, and a run without -m takes one. For a sweep: "
            f"{in_shell(*this_command(), '-m', f'{key}={value}')}; for one text with a comma in it:"
            f" {in_shell(f'{key}={quoted(value)}')}; for a list: {in_shell(f'{key}=[{value}]')}"
        )
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in )", f"{error}\n{cause}")
    if not found:
        return words
    path = re.search(r"full_key: (\S+)", f"{cause}")
    key = path[1] if path else found[1]
    parent, _, name = key.rpartition(".")
    with _hydra():
        if told := _only_some_have(key, given):
            return told
        configs = [_with_choices(overrides), *_of_swept_choices(key, given)]
        existing = sorted({item for config in configs for item in _keys(config, parent)})
    near = difflib.get_close_matches(name, existing, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    place = f"under {parent}" if parent else "at the root"
    return f"there is no key {key}.{hint} What exists {place}: {', '.join(existing)}"


def _only_some_have(key: str, given: Sequence[str]) -> str:
    """What to do about a key that some choices of a swept group have; empty: that is not why."""
    parsed = parse_overrides(given)
    parent, _, name = key.rpartition(".")
    for swept in parsed:
        group = swept.key_or_group
        if not swept.is_choice_sweep() or not key.startswith(f"{group}.") or not is_group(group):
            continue
        has: dict[str, bool] = {}
        for choice in dict.fromkeys(swept.sweep_string_iterator()):
            chosen = _with_choices([f"{swept.get_key_element()}={choice}"])
            has[choice] = name in _keys(chosen, parent)
        having = [choice for choice, found in has.items() if found]
        lacking = [choice for choice, found in has.items() if not found]
        if not having:
            continue
        command = command_with(parsed, swept, having, force=key if len(having) > 1 else "")
        if not lacking:  # but the default choice does, to which Hydra holds it before it sweeps
            return f"{key} needs two pluses in a sweep over {group}: give\n  {command}"
        others = [item for item in parsed if item.key_or_group != key]
        return (
            f"{key} is no key of {group}={','.join(lacking)}, which this sweep has beside "
            f"{group}={','.join(having)}. Make it two sweeps:\n"
            f"  {command_with(others, swept, lacking)}\n  {command}"
        )
    return ""


def _of_swept_choices(key: str, given: Sequence[str]) -> list[DictConfig]:
    """A config of each choice of the swept group that the key is under, if it is under one."""
    return [
        _with_choices([f"{item.get_key_element()}={choice}"])
        for item in parse_overrides(given)
        if item.is_choice_sweep() and key.startswith(f"{item.key_or_group}.")
        for choice in item.sweep_string_iterator()
    ]


def command_with(
    overrides: Sequence[Override], swept: Override, choices: Sequence[str], force: str = ""
) -> str:
    """The command line of a sweep in which `swept` has `choices` alone.

    The key `force` gets two pluses: it is set whether the config has it or not.
    """
    words = []
    for item in overrides:
        word = str(item.input_line)
        if item is swept:
            word = f"{swept.get_key_element()}={','.join(choices)}"
        elif item.key_or_group == force:
            word = f"++{word.lstrip('+')}"
        words.append(word)
    return in_shell(*this_command(), "-m", *words)


def _with_choices(overrides: Sequence[str]) -> DictConfig:
    """The config of what `overrides` choose, without the values that they set."""
    try:
        choices = [
            str(item.input_line)
            for item in parse_overrides(overrides)
            if not item.is_sweep_override() and is_group(item.key_or_group)
        ]
        return compose(CONFIG_NAME, overrides=choices)
    except (HydraException, OmegaConfBaseException):
        return compose(CONFIG_NAME)


def _keys(config: DictConfig, path: str) -> set[str]:
    """The keys at a dotted path, those without a value too; how a thing is made is left out."""
    node = OmegaConf.select(config, path) if path else config
    keys = [str(key) for key in node] if isinstance(node, DictConfig) else []
    return {key for key in keys if not key.startswith("_")}


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Hydra as it runs, or one on our own conf/ where it has ended."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield
