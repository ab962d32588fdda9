"""A cell's composed config as results keep it: read by dotted key, compared by identity."""

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
    """The values that a cell was composed of, whatever version of crossbench composed them.

    `document` is what result.json holds: nested mappings, or dotted keys where it was read from a
    frame. It may be empty, for a cell without a readable result. A `CellPlan` is made from it to
    measure; reports, trackers and frames read it through the methods here.
    """

    document: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.document)

    def value(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key; a group's own key (`backend`) has the name of its choice."""
        return self.flat.get(key, default)

    def section(self, key: str) -> Mapping[str, Any]:
        """A root key that holds a mapping of its own (`reference`); empty where it has none."""
        node = self.document.get(key)
        return node if isinstance(node, Mapping) else {}

    def without(self, keys: Collection[str]) -> CellConfig:
        """The config without these root keys."""
        return CellConfig({key: node for key, node in self.document.items() if key not in keys})

    def with_choices(self, names: Mapping[str, str]) -> CellConfig:
        """The config in which each of these groups is known by its choice's name alone."""
        return CellConfig({**self.document, **{key: {"name": name} for key, name in names.items()}})

    @cached_property
    def flat(self) -> dict[str, Any]:
        """Every value by its dotted key."""
        return flatten_config(self.document)

    @cached_property
    def texts(self) -> dict[str, str]:
        """Every value by its dotted key, as people read it, without credentials."""
        return flatten_text(self.document)

    @cached_property
    def comparable(self) -> CellConfig:
        """Without how the cell was watched and stored, which nobody compares cells by."""
        return CellConfig(without_bookkeeping(self.document))

    @cached_property
    def cell_id(self) -> str:
        """See `identity_of`; empty where nothing is known of the cell."""
        return identity_of(self.document) if self.document else ""

    @property
    def task(self) -> Task:
        """What the cell asks of the server; before there was a choice, scores."""
        return Task.EMBED if self.value("load.task") == Task.EMBED else Task.SCORE
