"""Check with pydantic whether a value fits the type of a field, and describe types in English."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, Literal, Union

from crossbench.errors import ConfigError

_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def field_type(owner: type, item: Field[Any]) -> Any:
    """Return the type of a field's annotation, evaluated in the module of its class.

    Raises:
        ConfigError: the module does not have that name at run time.
    """
    if not isinstance(item.type, str):
        return item.type
    for base in owner.__mro__:
        if item.name in inspect.get_annotations(base):
            owner = base
            break
    try:
        return eval(item.type, vars(sys.modules[owner.__module__]))  # nosec B307  # an annotation in our code
    except NameError as error:
        raise ConfigError(
            f"the type of {owner.__name__}.{item.name}, {item.type}, is not known at run time "
            f"({error}): import it outside of TYPE_CHECKING"
        ) from error


def accepts(wanted: Any, value: Any) -> bool:
    """Return whether a value from YAML has the type. An int is a valid float; a bool is neither."""
    from pydantic import ValidationError

    try:
        _adapter(wanted).validate_python(value)
    except ValidationError:
        return False
    return True


def description(wanted: Any) -> str:
    """Return the type in English: `a whole number or null`, `load or round_robin`."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(description(item) for item in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping of {_plural(arguments[0])} to {_plural(arguments[1])}"
    if origin is not None and issubclass(origin, Sequence):
        return f"a list of {_plural(arguments[0])}"
    if is_dataclass(wanted):
        return f"a group of keys ({', '.join(item.name for item in fields(wanted))})"
    return _NAMES.get(wanted, getattr(wanted, "__name__", str(wanted)))


def _plural(wanted: Any) -> str:
    name = description(wanted)
    return {"text": "texts", "a whole number": "whole numbers", "a number": "numbers"}.get(
        name, name
    )


@functools.cache
def _adapter(wanted: Any) -> Any:
    from pydantic import ConfigDict, InstanceOf, TypeAdapter

    if is_dataclass(wanted):  # only an instance fits; a mapping without `_target_` does not
        return TypeAdapter(InstanceOf[wanted])
    # Strict: "8" is not a number and true is not a count, so that no typo goes unnoticed
    return TypeAdapter(wanted, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
