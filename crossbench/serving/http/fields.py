"""The fields of a request in JSON, with errors that say which one is wrong and what to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossbench.errors import InvalidRequest
from crossbench.serving.service import shortened


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object. Null counts as absent. All methods raise InvalidRequest for a wrong value."""

    values: dict[str, Any]

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """Return a text that must be given."""
        value = self._given(name, "a string")
        if not isinstance(value, str):
            raise _wrong(name, value, "a string")
        return value

    def optional_text(self, name: str) -> str:
        """Return a text, "" if it is absent."""
        return self.text(name) if self.has(name) else ""

    def array(self, name: str) -> list[Any]:
        """Return an array that must be given, whose items are not checked yet."""
        value = self._given(name, "an array of strings")
        if not isinstance(value, list):
            raise _wrong(name, value, "an array of strings")
        return value

    def one_or_more(self, name: str) -> list[Any]:
        """Return the items of an array, which are not checked yet, or a single text."""
        value = self._given(name, "a string or an array of strings")
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise _wrong(name, value, "a string or an array of strings")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong(name, value, "true or false")
        return value

    def count(self, name: str, least: int) -> int | None:
        """Return a whole number of at least `least`, None if it is absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _wrong(name, value, f"a whole number of at least {least}")
        return value

    def choice(self, name: str, possible: Sequence[str]) -> str:
        """Return one of the `possible` texts, the first one if it is absent."""
        value = self.values.get(name)
        if value is None:
            return possible[0]
        if value not in possible:
            words = " or ".join(f'"{word}"' for word in possible)
            raise _wrong(name, value, words if isinstance(value, str) else f"a string: {words}")
        return str(value)

    def _given(self, name: str, what: str) -> Any:
        value = self.values.get(name)
        if value is None:
            raise InvalidRequest(f'the request has no "{name}": send {what}')
        return value


def strings(items: Sequence[Any], name: str, *, objects: bool = False) -> list[str]:
    """Return the texts of an array; with `objects`, an item may be {"text": TEXT}.

    Raises:
        InvalidRequest: an item is something else.
    """
    texts = []
    for index, item in enumerate(items):
        text = item.get("text") if objects and isinstance(item, dict) else item
        if not isinstance(text, str):
            wanted = 'a string or {"text": STRING}' if objects else "a string"
            raise _wrong(f"{name}[{index}]", item, wanted)
        texts.append(text)
    return texts


def kind_of(value: Any) -> str:
    """Describe a JSON value in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value:.6g}" if isinstance(value, float) else "a number"
        case str():
            return f"the string {shortened(value)}"
        case list():
            return "an array"
        case _:
            return "an object"


def _wrong(name: str, value: Any, wanted: str) -> InvalidRequest:
    if isinstance(value, int) and not isinstance(value, bool):
        return InvalidRequest(f'"{name}" is {str(value)[:20]}: send {wanted}')
    return InvalidRequest(f'"{name}" is {kind_of(value)}: send {wanted}')
