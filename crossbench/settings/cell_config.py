"""The composed config of a cell as results store it, read by dotted key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from crossbench.settings.flatten import flatten_config, flatten_text
from crossbench.settings.identity import identity_of, without_bookkeeping
from crossbench.types import Task


@dataclass(frozen=True)
class CellConfig:
    """The composed config of a cell, of this version of crossbench or an older one.

    `document` is the `config` of result.json: nested mappings, or dotted keys if it comes from a
    frame. It is empty for a cell without a readable result. To measure the cell, a `CellPlan` is
    made from it; reports, trackers and frames read it with the methods below.
    """

    document: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.document)

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of a dotted key; for a group (`backend`), the name of its choice."""
        return self.flat.get(key, default)

    def section(self, key: str) -> Mapping[str, Any]:
        """Return the mapping under a root key (`predecessor`); empty if there is none."""
        node = self.document.get(key)
        return node if isinstance(node, Mapping) else {}

    def without(self, keys: Collection[str]) -> CellConfig:
        """Return the config without these root keys."""
        return CellConfig({key: node for key, node in self.document.items() if key not in keys})

    def with_choices(self, names: Mapping[str, str]) -> CellConfig:
        """Return the config with only the given choice name for each of these groups."""
        return CellConfig({**self.document, **{key: {"name": name} for key, name in names.items()}})

    @cached_property
    def flat(self) -> dict[str, Any]:
        """All values by dotted key."""
        return flatten_config(self.document)

    @cached_property
    def texts(self) -> dict[str, str]:
        """All values by dotted key, as text for people, without credentials."""
        return flatten_text(self.document)

    @cached_property
    def comparable(self) -> CellConfig:
        """The config without the settings that only say how the cell was watched and stored."""
        return CellConfig(without_bookkeeping(self.document))

    @cached_property
    def cell_id(self) -> str:
        """The hash of `identity_of`; empty if the config is empty."""
        return identity_of(self.document) if self.document else ""

    @property
    def task(self) -> Task:
        """What the cell requests from the server; results older than `load.task` are scores."""
        return Task.EMBED if self.value("load.task") == Task.EMBED else Task.SCORE
