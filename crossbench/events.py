"""The events of a run: what its processes tell each other, as one line of JSON each.

The measured process sends them to its parent through a pipe. The parent appends them and its own to
the journal, a file that the dashboard reads. The dashboard tells its parent where it listens.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """A sweep begins; `cells` is how many it plans to measure."""

    name: str
    cells: int


@dataclass(frozen=True, slots=True)
class CellStarted:
    """A cell begins; `config` has its values as text by dotted key, without credentials."""

    label: str
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """The measured process begins something else, for example `warming up`."""

    stage: str


@dataclass(frozen=True, slots=True)
class ServerConfigured:
    """What a server without a cell runs on; `config` as in CellStarted."""

    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerListens:
    """The server takes requests at `address`, HOST:PORT."""

    address: str


@dataclass(frozen=True, slots=True)
class ServerStops:
    """The server is about to end, so its silence is no failure."""


@dataclass(frozen=True, slots=True)
class ProgressMade:
    """How far the measurement is: requests done, and the share of it that is over, 0 to 1.

    `p50_ms` is the median latency of the most recent requests.
    """

    done: int
    share: float
    pairs_per_s: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class WindowMeasured:
    """About one second as the client saw it: the requests that ended in it.

    `requests` succeeded, `failed` counts the others by gRPC status. Latency percentiles are None
    where no request succeeded.
    """

    requests: int
    failed: Mapping[str, int]
    pairs_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class CellEnded:
    """A cell has its result: a status of `results.Status`, and the metrics that it has."""

    status: str
    error: str | None
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over; `message` is a sentence for people."""

    message: str


@dataclass(frozen=True, slots=True)
class DashboardListens:
    """The page is at `url`; `note` is what a person should know about that, or empty."""

    url: str
    note: str


@dataclass(frozen=True, slots=True)
class DashboardRefused:
    """The dashboard cannot start; `message` says why."""

    message: str


Event: TypeAlias = (
    SweepStarted
    | CellStarted
    | StageStarted
    | ServerConfigured
    | ServerListens
    | ServerStops
    | ProgressMade
    | WindowMeasured
    | CellEnded
    | RunEnded
    | DashboardListens
    | DashboardRefused
)
_KINDS: Mapping[str, Callable[..., Event]] = {kind.__name__: kind for kind in get_args(Event)}
_FIELDS = {name: get_type_hints(kind) for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event, when it happened (Unix seconds), and the number of its cell from 0, if any."""

    event: Event
    time_s: float
    cell: int | None


def encode(event: Event, time_s: float, cell: int | None = None) -> str:
    """One line of ASCII with its newline; `decode` reads it back."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    line = {"time_s": time_s, "cell": cell, "event": type(event).__name__, **values}
    return json.dumps(line) + "\n"


def decode(line: str | bytes) -> Recorded | None:
    """The event of one line; None where the line holds none that this version knows.

    That is a line that is broken or cut off, or an event of another version whose kind is unknown
    or that lacks a value. Values that are unknown are left out.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = values.get("event") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in _KINDS:
        return None
    expected = {"time_s": float, "cell": int | None, **_FIELDS[name]}
    if not all(_fits(values.get(key), type_) for key, type_ in expected.items()):
        return None
    event = _KINDS[name](**{key: values.get(key) for key in _FIELDS[name]})
    return Recorded(event, values["time_s"], values.get("cell"))


def _fits(value: object, expected: Any) -> bool:
    """Whether a value read from JSON has the type that an event's field has."""
    if get_origin(expected) is Mapping:  # its keys are text, as all keys in JSON
        _, of_values = get_args(expected)
        return isinstance(value, dict) and all(_fits(item, of_values) for item in value.values())
    if options := get_args(expected):
        return any(_fits(value, option) for option in options)
    if isinstance(value, bool):  # which Python takes for an int
        return expected is bool
    if expected is float:  # and finite
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, expected)
