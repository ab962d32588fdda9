"""The axes of a sweep and the names of its cells, derived from the composed configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossbench.load.labels import LABELS_KEY, load_labels
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.flatten import is_number, value_text

# Order of names and columns; keys that are not listed follow in the config's own order.
_ORDER = (
    "model", "backend", "quant", "device", "pool", "scheduler", "server", "target", "load",
    "dataset", "batch", "concurrency",
)  # fmt: skip
_NOT_AN_AXIS = frozenset({"repeat"})  # a repeat is the same cell
# Keys that only reports read
_NOT_A_SETTING = frozenset({"study", "report", "predecessor", "reference"})
_CELL_AXES = ("backend", "quant", "batch")  # in every cell's name, with the keys of its load


def flatten(config: CellConfig) -> dict[str, str]:
    """A cell's settings as text by their dotted keys, without empty groups."""
    texts = config.without(_NOT_A_SETTING).texts
    return {key: text for key, text in texts.items() if text != "{}" and key != LABELS_KEY}


def varying(configs: Sequence[CellConfig]) -> list[str]:
    """The dotted keys in which the configs differ, in the order of columns.

    `repeat` is not an axis. Neither is a value inside a group that is determined by the group's
    choice, that is, each choice has one value of it.
    """
    flats = [flatten(config) for config in configs if config]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    differing = [
        key
        for key in keys
        if key not in _NOT_AN_AXIS and len({flat.get(key) for flat in flats}) > 1
    ]
    axes = [key for key in differing if "." not in key or not _implied(key, differing, flats)]
    return sorted(axes, key=lambda key: (_rank(key), list(keys).index(key)))


def label(config: CellConfig, axes: Sequence[str] = ()) -> str:
    """A cell's name: its values on `axes`, or on the usual axes if nothing varies."""
    flat = flatten(config)
    names = axes or [axis for axis in (*_CELL_AXES, *load_labels(config)) if axis in flat]
    return " ".join(value_text(axis, flat) for axis in names)


def full_label(config: CellConfig, also: Sequence[str] = ()) -> str:
    """A cell's name with the usual axes in any case, and those of `also`."""
    flat = flatten(config)
    names = dict.fromkeys((*_CELL_AXES, *load_labels(config), *sorted(also, key=_rank)))
    return " ".join(value_text(axis, flat) for axis in names if axis in flat)


def numeric_axis(axes: Sequence[str], flats: Sequence[Mapping[str, str]]) -> str | None:
    """The axis to plot along: `batch` if it varies, else the last numeric axis, or None."""
    numeric = [axis for axis in axes if all(is_number(flat.get(axis, "")) for flat in flats)]
    if "batch" in numeric:
        return "batch"
    return numeric[-1] if numeric else None


def _implied(key: str, differing: Sequence[str], flats: Sequence[Mapping[str, str]]) -> bool:
    group = key.split(".", 1)[0]
    if group not in differing:
        return False
    choices = {flat.get(group) for flat in flats}
    return len({(flat.get(group), flat.get(key)) for flat in flats}) == len(choices)


def _rank(key: str) -> int:
    group = key.split(".", 1)[0]
    return _ORDER.index(group) if group in _ORDER else len(_ORDER)
