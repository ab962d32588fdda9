"""Overrides as people type them: what Hydra's grammar cannot read is taken as text where it can
have no other meaning, or refused with the quoted form that works in a shell."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from crossbench.errors import ConfigError

_FUNCTION = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*", re.DOTALL)
# Values that are always text: 12e5 may be a revision
_TEXTS = ("path", "dir", "name", "repo", "revision", "experiment", "registered_model")
_PAIRS = {"[": "]", "{": "}", "'": "'", '"': '"'}


def readable_arguments(arguments: Sequence[str]) -> list[str]:
    """A command's arguments with every override in a form that Hydra's grammar can read.

    Options come first: Hydra reads no overrides on both sides of one.

    Raises:
        ConfigError: an override has more than one meaning; with the form to give.
    """
    overrides = get_args_parser().parse_intermixed_args(list(arguments)).overrides
    options = [word for word in arguments if word not in overrides]
    return [*options, *map(readable, overrides)]


def readable(override: str) -> str:
    """`key=~/x` as `key="~/x"`; an override that Hydra can read stays as it is.

    A path or a name that looks like a number (`model.path=2024`) is text as well.

    Raises:
        ConfigError: the value cannot be read, and may be more than one text.
    """
    key, equals, value = override.partition("=")
    parsed = _parse(override)
    if parsed is not None:
        is_number = not parsed.is_sweep_override() and isinstance(parsed.value(), int | float)
        if is_number and _is_text(key):
            return f"{key}={quoted(value.strip())}"
        return override
    if not equals:
        raise ConfigError(
            f"{override!r} is no override: give KEY=VALUE, for example backend=onnx; --help lists "
            "the keys"
        )
    if _parse(f"{key}=x") is None:
        raise ConfigError(f"{key!r} cannot be the name of a setting: --help lists the names")
    if "${" in value or "," in value or _is_structure(value):
        raise ConfigError(_forms(key, value))
    return f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """`text` as a quoted string of Hydra's grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def in_shell(*words: str) -> str:
    """Words as one types them in a shell."""
    return shlex.join(words)


def this_command() -> tuple[str, ...]:
    """The words that start the command that runs: it is the client, or the one that has no name."""
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


def _is_structure(value: str) -> bool:
    """Whether it was meant as a list, a mapping, a quoted string or one of Hydra's functions."""
    value = value.strip()
    if len(value) > 1 and _PAIRS.get(value[0]) == value[-1]:
        return True
    found = _FUNCTION.fullmatch(value)
    return found is not None and found[1] in OverridesParser.create().functions.functions


def _forms(key: str, value: str) -> str:
    """What to give instead of `key=value`, each form as a shell takes it."""
    forms = [("as one text", f"{key}={quoted(value)}")]
    function, listed = _FUNCTION.fullmatch(value), re.fullmatch(r"\s*\[(.*)\]\s*", value, re.DOTALL)
    if function and _is_structure(value):  # Hydra's functions lose the quotes of their arguments
        forms = [("for a sweep with -m", f"{key}={_quote_each(function[2])}")]
    elif listed:
        forms.append(("as a list", f"{key}=[{_quote_each(listed[1])}]"))
    elif "," in value and not _is_structure(value):
        forms.append(("for a sweep with -m", f"{key}={_quote_each(value)}"))
    told = [f"{what}: {in_shell(form)}" for what, form in forms if _parse(form) is not None]
    return (
        f"Hydra cannot read {key}={value}: a value with other characters than letters, digits and "
        f"/-\\+.$%*@?| needs quotes of its own. Give it {'; or '.join(told)}"
    )


def _quote_each(values: str) -> str:
    parts = [part.strip() for part in values.split(",")]
    return ",".join(part if _parse(f"x={part}") else quoted(part) for part in parts)
