"""One choice of one config group: which class it names, and with which values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.command_line import in_shell, quoted
from crossbench.settings.field_types import accepts, description, field_type
from crossbench.settings.places import conf_dir


@dataclass(frozen=True, slots=True)
class Component:
    """A choice of a config group, checked against the class that it names.

    `key` is the group's (`backend`), `name` the choice's (`onnx`), `target` the dotted path of the
    class. `values` are the class's arguments; those that are components themselves are built first.
    """

    key: str
    name: str | None
    target: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, key: str, node: Any) -> Component:
        """The component of a config node with a `_target_`, its values checked by their types.

        Raises:
            ConfigError: the node names no class, or a value has another type than its field.
        """
        if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
            raise ConfigError(f"{key} must be a choice of conf/{key}, got {node!r}")
        values = {
            str(name): cls.of(f"{key}.{name}", value) if _is_component(value) else value
            for name, value in node.items()
            if name != "_target_"
        }
        component = cls(key, node.get("name"), node["_target_"], values)
        component._check_types()
        return component

    @classmethod
    def choice(cls, key: str, name: str) -> Component:
        """A choice as its file in conf/ has it, without overrides."""
        return cls.of(key, choice_values(key, name))

    @property
    def type(self) -> Any:
        """The class, imported now.

        Raises:
            ConfigError: there is no such class.
        """
        try:
            return get_class(self.target)
        except Exception as error:  # Hydra wraps whatever the import raised
            raise ConfigError(
                f"{self.key} names {self.target}, which cannot be imported: {error}"
            ) from error

    def build(self, **extra: Any) -> Any:
        """Construct the class from the values, nested components first, and `extra`.

        Not by Hydra's `instantiate`, which would turn the dataclasses in `extra` into configs.

        Raises:
            CrossbenchError: what the class itself refused.
            ConfigError: the class does not take these values.
        """
        values = {
            key: value.build() if isinstance(value, Component) else value
            for key, value in self.values.items()
        }
        try:
            return self.type(**values, **extra)
        except TypeError as error:
            raise ConfigError(f"{self.target} does not take {values}: {error}") from error

    def replace(self, **values: Any) -> Component:
        """The component with other values."""
        return dataclasses.replace(self, values={**self.values, **values})

    def _check_types(self) -> None:
        owner: type = self.type
        if not is_dataclass(owner):
            return
        for item in fields(owner):
            given = item.init and item.name in self.values
            if not given or isinstance(self.values[item.name], Component):
                continue
            value, wanted = self.values[item.name], field_type(owner, item)
            if not accepts(wanted, value):
                key = f"{self.key}.{item.name}"
                raise ConfigError(
                    f"{key} must be {description(wanted)}, got {value!r}{_hint(key, wanted, value)}"
                )


def choice_values(group: str, name: str) -> dict[str, Any]:
    """A choice's values over those of the group's choices that its defaults list names."""
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=True)
    assert isinstance(node, dict)
    values: dict[str, Any] = {}
    for base in node.pop("defaults", ()):
        if isinstance(base, str):  # the others override other groups
            values |= choice_values(group, base)
    return values | {str(key): value for key, value in node.items()}


def _is_component(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _hint(key: str, wanted: Any, value: Any) -> str:
    """How to give as text what Hydra reads as a number, a truth value or a list."""
    if isinstance(value, str | dict) or not accepts(wanted, "text"):
        return ""
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    return f": where it is text, put it in quotes, {in_shell(f'{key}={quoted(text)}')}"
