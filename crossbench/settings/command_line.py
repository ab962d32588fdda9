"""Overrides as users type them. A value that Hydra's grammar cannot parse is quoted if it can only
be text; otherwise it is refused, and the error message has the quoted form to type in a shell."""

from __future__ import annotations

import os
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from crossbench.errors import ConfigError
from crossbench.settings.places import conf_dir

QUIET = "CROSSBENCH_QUIET"  # environment variable: show no progress
_QUIET_OPTION = "--quiet"
_FUNCTION = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", re.DOTALL)
# Keys whose values are always text: 12e5 may be a revision
_TEXTS = ("path", "dir", "name", "repo", "revision", "experiment", "registered_model")
_MIXED = ("predecessor", "experiment")  # the first takes several; the other has its own message
_PAIRS = {"[": "]", "{": "}", "'": "'", '"': '"'}


def take_quiet(arguments: Sequence[str]) -> list[str]:
    """Remove `--quiet` from a command line, and set it for this process and its children."""
    if _QUIET_OPTION in arguments:
        os.environ[QUIET] = "1"
    return [word for word in arguments if word != _QUIET_OPTION]


def readable_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments with every override in a form that Hydra's grammar can parse.

    Options come first: Hydra refuses overrides on both sides of an option.

    Raises:
        ConfigError: an override has more than one meaning; the message has the form of each. Or
            the arguments ask for a pickle to be run or for another config, have options that do
            not exist or exclude each other, or several choices of a group at once.
    """
    parsed = _parser().parse_intermixed_args(list(arguments))
    for option, value in {"path": parsed.config_path, "name": parsed.config_name}.items():
        if value is not None:
            raise ConfigError(
                f"--config-{option} {value}: crossbench always starts from its own config: leave "
                "out this option; --config-dir DIR adds a folder with more choices"
            )
    if parsed.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun runs code that is stored in its file (a pickle), which "
            "crossbench does not do: give the overrides again, or -m resume=FOLDER for a sweep"
        )
    modes = {
        "-m": parsed.multirun,
        "--run": parsed.run,
        "--cfg": parsed.cfg,
        "--info": parsed.info,
        "--shell-completion": parsed.shell_completion,
    }
    if len(given := [option for option, value in modes.items() if value]) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other: give one of them")
    options, overrides = options_first(arguments)
    if options and options[-1] in ("--info", "-i"):  # or it would take the first override
        options[-1] = "--info=all"
    return [*options, *map(readable, overrides)]


def options_first(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of a Hydra command with their values, and its other words.

    An option may stand anywhere: `--config-dir DIR`, `--config-dir=DIR`, `-cd DIR`.

    Raises:
        ConfigError: there is no such option, or it lacks its value.
    """
    given = [_Argument(argument) for argument in arguments]
    words = _parser().parse_intermixed_args(given).overrides
    positions = {id(word) for word in words}  # the value of an option may be equal to a word
    return [str(word) for word in given if id(word) not in positions], list(map(str, words))


def _parser() -> ArgumentParser:
    """Return Hydra's parser; for a mistake it raises ConfigError instead of printing its usage."""
    parser = get_args_parser()
    parser.__dict__["error"] = _refuse_option
    return parser


def _refuse_option(message: str) -> NoReturn:
    unknown = re.match(r"unrecognized arguments: (\S+)", message)
    if unknown is None:
        raise ConfigError(f"{message}; --hydra-help lists the options")
    raise ConfigError(_no_option(unknown[1]))


def _no_option(word: str) -> str:
    return (
        f"there is no option {word}. Settings have no dashes: give KEY=VALUE, for example "
        "backend=onnx; --help lists the keys"
    )


class _Argument(str):
    """An argument that is told from an equal one by its identity."""


def readable(override: str) -> str:
    """Return `key="~/x"` for `key=~/x`; an override that Hydra can parse stays as it is.

    Paths, names and choices that look like a number, a boolean or null (`model.path=2024`) are
    quoted too.

    Raises:
        ConfigError: the value cannot be parsed and has more than one possible meaning.
    """
    key, equals, value = override.partition("=")
    parsed = _parse(override) if key.strip("+~ ") else None
    if parsed is not None:
        if _is_choice(key) and not parsed.is_delete():
            _refuse_mixing(parsed)
            return f"{key}={_quote_non_text(value)}"
        is_number = not parsed.is_sweep_override() and isinstance(parsed.value(), int | float)
        if is_number and _is_text(key):
            return f"{key}={quoted(value.strip())}"
        return override
    if override.startswith("-"):
        raise ConfigError(_no_option(override))
    if not equals or not key.strip("+~ "):
        raise ConfigError(
            f"{override!r} is not an override: give KEY=VALUE, for example backend=onnx; --help "
            "lists the keys"
        )
    if _parse(f"{key}=x") is None:
        raise ConfigError(f"{key!r} cannot be the name of a setting: --help lists the names")
    if value.endswith(","):
        raise ConfigError(
            f"{override!r} ends with a comma: give several values without spaces between them, "
            f"for example {key}=1,2"
        )
    if "${" in value or "," in value or _is_structure(value):
        raise ConfigError(_forms(key, value))
    return f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """Return `text` as a quoted string of Hydra's grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def in_shell(*arguments: str) -> str:
    """Return the arguments as one types them in a shell."""
    return shlex.join(arguments)


def this_command() -> tuple[str, ...]:
    """Return the start of the running command: crossbench.client, or crossbench for any other."""
    client = Path(sys.argv[0]).stem == "client"
    return ("python", "-m", "crossbench.client" if client else "crossbench")


def _parse(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _is_text(key: str) -> bool:
    last = key.rsplit(".", 1)[-1].lstrip("+")
    return last in _TEXTS or last.endswith("_dir")


def _is_choice(key: str) -> bool:
    """Return whether `key` (`backend`, `+experiment`) is a config group of conf/."""
    group = key.lstrip("+").partition("@")[0]
    return bool(group) and "." not in group and (conf_dir() / group).is_dir()


def _refuse_mixing(override: Override) -> None:
    """Refuse several choices of a group at once, except of groups that are made for it."""
    value = None if override.is_sweep_override() else override.value()
    group = override.key_or_group
    if not isinstance(value, list) or group in _MIXED:
        return
    if all((conf_dir() / group / f"{choice}.yaml").is_file() for choice in value):
        listed = ",".join(map(str, value))
        raise ConfigError(
            f"{override.input_line} mixes the values of several choices into one: give one of "
            f"them, or for a sweep -m {group}={listed}"
        )


def _quote_non_text(choices: str) -> str:
    """Quote each of the comma-separated choices that Hydra would read as something else than text.

    Hydra fails with a traceback on such a choice; as text, it is refused as an unknown choice.
    """
    parts = choices.split(",")
    parsed = [_parse(f"x={part}") for part in parts]
    return ",".join(
        quoted(part.strip())
        if item is not None and isinstance(item.value(), int | float | dict | None)
        else part
        for part, item in zip(parts, parsed, strict=True)
    )


def _is_structure(value: str) -> bool:
    """Return whether `value` looks like a list, a mapping, a quoted string or a Hydra function."""
    value = value.strip()
    if len(value) > 1 and _PAIRS.get(value[0]) == value[-1]:
        return True
    found = _FUNCTION.fullmatch(value)
    return found is not None and found[1] in OverridesParser.create().functions.functions


def _forms(key: str, value: str) -> str:
    """Return the error message for `key=value`, with each possible form quoted for a shell."""
    forms = [("as one text", f"{key}={quoted(value)}")]
    function, listed = _FUNCTION.fullmatch(value), re.fullmatch(r"\s*\[(.*)\]\s*", value, re.DOTALL)
    if function and _is_structure(value):  # Hydra's functions lose the quotes of their arguments
        forms = [("for a sweep with -m", f"{key}={_quote_each(function[2])}")]
    elif listed:
        forms.append(("as a list", f"{key}=[{_quote_each(listed[1])}]"))
    elif "," in value and not _is_structure(value):
        forms.append(("for a sweep with -m", f"{key}={_quote_each(value)}"))
    options = [f"{kind}: {in_shell(form)}" for kind, form in forms if _parse(form) is not None]
    return (
        f"Hydra cannot parse {key}={value}: a value with characters other than letters, digits and "
        f"/-\\+.$%*@?| needs quotes of its own. Give it {'; or '.join(options)}"
    )


def _quote_each(values: str) -> str:
    parts = [part.strip() for part in values.split(",")]
    return ",".join(part if _parse(f"x={part}") else quoted(part) for part in parts)
