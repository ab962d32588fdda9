"""A choice of a config group: the class that it names, and the values for that class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.command_line import in_shell, quoted
from crossbench.settings.field_types import accepts, description, field_type
from crossbench.settings.places import conf_dir
from crossbench.settings.targets import TARGET, allowed_class, check_names


@dataclass(frozen=True, slots=True)
class Component:
    """A choice of a config group, checked against the class that it names.

    `key` is the group (`backend`), `name` the choice (`onnx`), `target` the dotted path of the
    class. `values` are the arguments of the class; nested components are built first.
    """

    key: str
    name: str | None
    target: str
    values: Mapping[str, Any]

    @classmethod
    def of(cls, key: str, node: Any) -> Component:
        """Return the component of a config node with a `_target_`, and check its values' types.

        Raises:
            ConfigError: the node names no class or one that is not allowed (see `targets`), or a
                value has the wrong type for its field.
        """
        if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
            raise ConfigError(f"{key} must be a choice of conf/{key}, got {node!r}")
        check_names(key, node)
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
        """Return a choice with the values of its file in conf/, without overrides."""
        return cls.of(key, choice_values(key, name))

    @property
    def type(self) -> Any:
        """The class; the first access imports it.

        Raises:
            ConfigError: the class is not allowed, or cannot be imported.
        """
        return allowed_class(f"{self.key}.{TARGET}", self.target)

    def build(self, **extra: Any) -> Any:
        """Construct the class from the values (nested components first) and `extra`.

        Hydra's `instantiate` is not used: it would turn the dataclasses in `extra` into configs.

        Raises:
            CrossbenchError: the class refused a value.
            ConfigError: the class does not take these arguments.
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
        """Return a copy with some values replaced."""
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
    """Return the values of a choice, merged over those of the choices in its defaults list."""
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), resolve=True)
    assert isinstance(node, dict)
    values: dict[str, Any] = {}
    for base in node.pop("defaults", ()):
        if isinstance(base, str):  # mappings are overrides of other groups
            values |= choice_values(group, base)
    return values | {str(key): value for key, value in node.items()}


def _is_component(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _hint(key: str, wanted: Any, value: Any) -> str:
    """Return how to quote a value that Hydra parses as a number, boolean or list, but is text."""
    if isinstance(value, str | dict) or not accepts(wanted, "text"):
        return ""
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
    return f": if it is text, put it in quotes, {in_shell(f'{key}={quoted(text)}')}"
