"""Explain why a configuration does not compose: which keys and choices exist, what to give."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Sequence

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crossbench.settings.choices import choices_with
from crossbench.settings.command_line import in_shell, quoted, this_command
from crossbench.settings.composing import CONFIG_NAME, hydra_on_conf
from crossbench.settings.targets import ALLOW_TARGETS

_SUGGESTED = 3  # names at most


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides as Hydra's sweeper does; `glob(...)` expands to the choices of its group.

    Raises:
        HydraException: an override cannot be parsed.
    """
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def is_group(key: str) -> bool:
    """Return whether `key` is a config group (a folder of conf/). Hydra must be initialized."""
    loader = GlobalHydra.instance().config_loader()
    return bool(loader.get_group_options(key, results_filter=ObjectType.CONFIG))


def explain(error: Exception, overrides: Sequence[str] = (), given: Sequence[str] = ()) -> str:
    """Return an error message for a config that does not compose: what is wrong, what exists.

    `overrides` are the overrides of that config, `given` those of the command line. If only some
    of the swept choices have a key, the message has one command for each part of the sweep.
    """
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _unknown_choice(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'$", lines[0]):
        key, value = several[1], several[2]
        return (
            f"{key}={value} has several values, but a run without -m takes one value per key. "
            f"For a sweep, give {in_shell(*this_command(), '-m', f'{key}={value}')}; for one text "
            f"with a comma, {in_shell(f'{key}={quoted(value)}')}; for a list, "
            f"{in_shell(f'{key}=[{value}]')}"
        )
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in )", f"{error}\n{cause}")
    if not found:
        return _rule_of_hydra(lines, cause)
    path = re.search(r"full_key: (\S+)", f"{cause}")
    key = path[1] if path else found[1]
    parent, _, name = key.rpartition(".")
    if key == ALLOW_TARGETS:
        return (
            f"a file of this config has the key {key}, but a file cannot allow classes: remove it. "
            f"If you trust them, give {key}=[PACKAGE.] on the command line"
        )
    with hydra_on_conf():
        if message := _missing_in_some_choices(key, given):
            return message
        configs = [_with_choices(overrides), *_of_swept_choices(key, given)]
        existing = sorted({item for config in configs for item in _keys(config, parent)})
    if having := choices_with(parent, name):
        return (
            f"{key} is a key of {parent}={' or '.join(having)} only: give for example "
            f"{parent}={having[0]} too"
        )
    place = f"under {parent}" if parent else "at the root"
    available = f" Available keys {place}: {', '.join(existing)}" if existing else ""
    return f"there is no key {key}.{did_you_mean(name, existing)}{available}"


def _rule_of_hydra(lines: Sequence[str], cause: BaseException | None) -> str:
    """Return an error message for an override that breaks a rule of Hydra; else Hydra's own."""
    if found := re.match(r"Could not override '([^']+)'\. No match in the defaults", lines[0]):
        return f"{found[1]} has no default choice, so it is added with a plus: give +{found[1]}=..."
    if found := re.match(r"Multiple values for ([^.]+)\. To override", lines[0]):
        return f"{found[1]} already has a choice: give {found[1]}=..., without the plus"
    if found := re.match(r"\w+ raised while resolving interpolation: (.+)", lines[0]):
        return found[1]
    if (found := re.match(r"Error merging override (.+)", lines[0])) and cause is not None:
        return f"{found[1]}: {str(cause).splitlines()[0]}"
    return "\n".join(dict.fromkeys(lines))


def did_you_mean(name: str, existing: Sequence[str]) -> str:
    """Return ` Did you mean …?` with the existing name nearest to `name`; empty if none is near.

    If none is, these are the names of which `name` is a part: `8` of `int8`.
    """
    near = difflib.get_close_matches(name, existing, n=1)
    if not near and name:
        near = [item for item in existing if name.lower() in item.lower()]
    return f" Did you mean {' or '.join(near)}?" if 0 < len(near) <= _SUGGESTED else ""


def _unknown_choice(error: MissingConfigException) -> str:
    """Return an error message for a choice of a config group that does not exist."""
    path = str(error.missing_cfg_file)
    folder = path.rpartition("/")[0]
    named = re.search(r"Available options in '([^']+)'", str(error))
    group = named[1] if named else folder
    choice = path.removeprefix(f"{group}/")
    if group == "hydra/sweeper/sampler" and not has_optuna():
        return (
            "hydra/sweeper=optuna needs the package hydra-optuna-sweeper: install it with "
            "python -m pip install 'crossbench[optuna]', or in a checkout with "
            "python -m pip install -c constraints.txt -e '.[optuna]'"
        )
    if group == "model" and "/" in choice:
        return _unknown_model(choice)
    with hydra_on_conf():
        options = GlobalHydra.instance().config_loader().get_group_options
        existing = list(error.options or options(group, results_filter=ObjectType.CONFIG))
        if folder != group:  # a choice in a subfolder, such as experiment=sweep/batch_size
            subfolder = folder.removeprefix(f"{group}/")
            inside = options(folder, results_filter=ObjectType.CONFIG)
            existing = [f"{subfolder}/{item}" for item in inside] or existing
    config = re.match(r"In '([^']+)'", str(error))
    place = f"{config[1]}: " if config and config[1] not in (CONFIG_NAME, "hydra/config") else ""
    return (
        f"{place}there is no choice {group}={choice}.{did_you_mean(choice, existing)} "
        f"Available choices of {group}: {', '.join(existing)}"
    )


def has_optuna() -> bool:
    """Return whether Hydra's plugin for Optuna is installed."""
    return importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None


def _unknown_model(given: str) -> str:
    """Return an error message for `model=OWNER/NAME` or `model=some/folder`."""
    folder = f"model=local model.path={given}"
    hub = f"model=hub model.repo={given}"
    remedy = (
        f"For a repository of the Hugging Face Hub, give {hub}; for a folder, {folder}."
        if re.fullmatch(r"\w[\w.-]*/[\w.-]+", given)
        else f"For a folder, give {folder}."
    )
    with hydra_on_conf():
        loader = GlobalHydra.instance().config_loader()
        existing = loader.get_group_options("model", results_filter=ObjectType.CONFIG)
    return (
        f"there is no choice model={given}. {remedy} Available choices of model: "
        f"{', '.join(existing)}"
    )


def _missing_in_some_choices(key: str, given: Sequence[str]) -> str:
    """Return what to give if only some choices of a swept group have `key`, else an empty text."""
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
        if not lacking:  # the default choice does: Hydra checks keys against it before it sweeps
            return f"{key} needs two pluses in a sweep over {group}: give\n  {command}"
        others = [item for item in parsed if item.key_or_group != key]
        return (
            f"{group}={','.join(lacking)} has no key {key}, but {group}={','.join(having)} has. "
            "Run two sweeps:\n"
            f"  {command_with(others, swept, lacking)}\n  {command}"
        )
    return ""


def _of_swept_choices(key: str, given: Sequence[str]) -> list[DictConfig]:
    """Return one config per choice of the swept group that contains `key`, if there is one."""
    return [
        _with_choices([f"{item.get_key_element()}={choice}"])
        for item in parse_overrides(given)
        if item.is_choice_sweep() and key.startswith(f"{item.key_or_group}.")
        for choice in item.sweep_string_iterator()
    ]


def command_with(
    overrides: Sequence[Override], swept: Override, choices: Sequence[str], force: str = ""
) -> str:
    """Return the command of the sweep in which `swept` takes only `choices`.

    The key `force` gets two pluses, so that it is set even if the config does not have it.
    """
    arguments = []
    for item in overrides:
        argument = str(item.input_line)
        if item is swept:
            argument = f"{swept.get_key_element()}={','.join(choices)}"
        elif item.key_or_group == force:
            argument = f"++{argument.lstrip('+')}"
        arguments.append(argument)
    return in_shell(*this_command(), "-m", *arguments)


def _with_choices(overrides: Sequence[str]) -> DictConfig:
    """Compose the config with the group choices in `overrides`, without the values they set."""
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
    """Return the keys under a dotted path, also those without a value; `_target_` is left out."""
    node = OmegaConf.select(config, path) if path else config
    keys = [str(key) for key in node] if isinstance(node, DictConfig) else []
    return {key for key in keys if not key.startswith("_")}
