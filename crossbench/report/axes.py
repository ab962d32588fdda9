"""The axes of a sweep and the names of its cells, derived from the composed configs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossbench.load.labels import CONCURRENCY_KEY, LABELS_KEY, RATE_KEY, load_labels
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.flatten import is_number, value_text
from crossbench.settings.plan import OF_OUR_SERVER

# Order of names and columns; keys that are not listed follow in the config's own order.
_ORDER = (
    "model", "backend", "quant", "device", "pool", "scheduler", "server", "target", "load",
    "dataset", "batch", "concurrency",
)  # fmt: skip
_NOT_AN_AXIS = frozenset({"repeat"})  # a repeat is the same cell
# Of a server of other people, only `target` is known. Cells that have these keys may differ in them
_MAY_BE_UNKNOWN = OF_OUR_SERVER
# Keys that only reports read
_NOT_A_SETTING = frozenset({"study", "report", "cost", "predecessor", "reference"})
_BACKEND, _TARGET = "backend", "target"
_CELL_AXES = (_BACKEND, "quant", "batch")  # in every cell's name, with the keys of its load
# What the values of an axis are; an axis that is not listed is shown by its key alone
_MEANING = {
    RATE_KEY: "requests/s offered",
    CONCURRENCY_KEY: "requests in flight",
    "load": "when requests are sent",
    "load.cv": "variation of the times between requests",
    "load.levels": "levels of the ramp",
    "load.of": "what the ramp raises",
    "load.path": "file of arrival times",
    "load.speed": "times the rate of the trace",
    "load.max_in_flight": "most requests that wait for replies",
    "load.sizes": "shares of request sizes",
}
_HEADINGS = {RATE_KEY: "rate (req/s)"}  # of columns; other axes have their key
_FIRST_NUMERIC = (RATE_KEY, "batch")  # plots have these on their x axis, if they vary


def flatten(config: CellConfig) -> dict[str, str]:
    """A cell's settings as text by their dotted keys, without empty groups."""
    texts = config.without(_NOT_A_SETTING).texts
    return {key: text for key, text in texts.items() if text != "{}" and key != LABELS_KEY}


def varying(configs: Sequence[CellConfig]) -> list[str]:
    """The dotted keys in which the configs differ, in the order of columns.

    `repeat` is not an axis. Neither is a value inside a group that is determined by the group's
    choice, that is, each choice has one value of it. Of two keys of the load that always vary
    together, only the first is an axis.
    """
    flats = [flatten(config) for config in configs if config]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    differing = [key for key in keys if key not in _NOT_AN_AXIS and len(_values(key, flats)) > 1]
    if _TARGET in differing and any(_BACKEND not in flat for flat in flats):
        differing = list(dict.fromkeys((_BACKEND, *differing)))  # "inprocess" names no server
    axes = [key for key in differing if "." not in key or not _implied(key, differing, flats)]
    axes = sorted(axes, key=lambda key: (_rank(key), list(keys).index(key)))
    return [key for key in axes if not _repeats_another(key, axes, flats)]


def label(config: CellConfig, axes: Sequence[str] = ()) -> str:
    """A cell's name: its values on `axes`, or on the usual axes if nothing varies.

    An axis that the cell does not have, such as the rate of another load, is left out.
    """
    flat = flatten(config)
    usual = _usual_axes(flat, config)
    names = [axis for axis in axes or usual if axis in flat] or axes
    return " ".join(value_text(axis, flat) for axis in names)


def full_label(config: CellConfig, also: Sequence[str] = ()) -> str:
    """A cell's name with the usual axes in any case, and those of `also`."""
    flat = flatten(config)
    names = dict.fromkeys((*_usual_axes(flat, config), *sorted(also, key=_rank)))
    return " ".join(value_text(axis, flat) for axis in names if axis in flat)


def numeric_axis(axes: Sequence[str], flats: Sequence[Mapping[str, str]]) -> str | None:
    """The axis to plot along: the rate or `batch`, else the last numeric axis, or None."""
    numeric = [axis for axis in axes if all(is_number(flat.get(axis, "")) for flat in flats)]
    first = next((axis for axis in _FIRST_NUMERIC if axis in numeric), None)
    return first or (numeric[-1] if numeric else None)


def axis_meaning(axis: str, unit: str = "pairs") -> str:
    """What the values of an axis are: `requests/s offered`; empty if its key says it."""
    return f"{unit} per request" if axis == "batch" else _MEANING.get(axis, "")


def axis_title(axis: str, unit: str = "pairs") -> str:
    """The label of a plot's axis: `requests/s offered (load.rate)`, or the key alone."""
    meaning = axis_meaning(axis, unit)
    return f"{meaning} ({axis})" if meaning else axis


def axis_headings(axes: Sequence[str]) -> list[str]:
    """The headings of the axes' columns: the last part of each key, if it is unique."""
    last = [axis.rsplit(".", 1)[-1] for axis in axes]
    return [
        _HEADINGS.get(axis, short if last.count(short) == 1 else axis)
        for axis, short in zip(axes, last, strict=True)
    ]


def _usual_axes(flat: Mapping[str, str], config: CellConfig) -> tuple[str, ...]:
    """The axes in every cell's name. A server of other people has no backend that is known."""
    server = () if _BACKEND in flat or not flat else (_TARGET,)
    return (*server, *_CELL_AXES, *load_labels(config))


def _values(key: str, flats: Sequence[Mapping[str, str]]) -> set[str | None]:
    """The values of a key, without that of cells in which it is unknown."""
    if key.split(".", 1)[0] in _MAY_BE_UNKNOWN:
        return {flat[key] for flat in flats if key in flat}
    return {flat.get(key) for flat in flats}


def _implied(key: str, differing: Sequence[str], flats: Sequence[Mapping[str, str]]) -> bool:
    group = key.split(".", 1)[0]
    if group not in differing:
        return False
    choices = {flat.get(group) for flat in flats}
    return len({(flat.get(group), flat.get(key)) for flat in flats}) == len(choices)


def _repeats_another(key: str, axes: Sequence[str], flats: Sequence[Mapping[str, str]]) -> bool:
    """Whether a key of the load distinguishes the same cells as one before it."""
    if not key.startswith("load."):
        return False
    before = [axis for axis in axes[: axes.index(key)] if axis.startswith("load.")]
    return any(
        len({(flat.get(axis), flat.get(key)) for flat in flats})
        == len({flat.get(axis) for flat in flats})
        == len({flat.get(key) for flat in flats})
        for axis in before
    )


def _rank(key: str) -> int:
    group = key.split(".", 1)[0]
    return _ORDER.index(group) if group in _ORDER else len(_ORDER)
