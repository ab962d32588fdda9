"""The events that the processes of a run send to each other, encoded as one line of JSON each.

The cell process sends events to the parent process through a pipe. The parent appends these and its
own events to the journal, a file that the dashboard reads. The dashboard sends its address to the
parent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

MEASURING = "measuring"  # the stage in which a cell's requests are measured


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """A sweep has started; `cells` is the planned number of cells."""

    name: str
    cells: int


@dataclass(frozen=True, slots=True)
class CellStarted:
    """A cell has started; `config` maps dotted keys to values as text, without credentials.

    `machine` is the name of the one that measures it, None if it is that of the parent process.
    """

    label: str
    config: Mapping[str, str]
    machine: str | None = None


@dataclass(frozen=True, slots=True)
class StageStarted:
    """The cell process has entered another stage, for example `warming up`."""

    stage: str


@dataclass(frozen=True, slots=True)
class ServerConfigured:
    """A server that runs without a cell has its config; `config` is as in CellStarted."""

    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerListens:
    """The server accepts requests at `address`, HOST:PORT.

    `access` is what a client needs to get in: paths of files, see `serving.access`.
    """

    address: str
    access: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServerStops:
    """The server is about to stop. When it no longer responds, this is not a failure."""


@dataclass(frozen=True, slots=True)
class ProgressMade:
    """Progress of the measurement.

    `done` is the number of completed requests, `share` the completed share of the measurement from
    0 to 1, and `p50_ms` the median latency of the most recent requests.
    """

    done: int
    share: float
    pairs_per_s: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class WindowMeasured:
    """The requests that ended in a window of about one second, as seen by the client.

    `requests` is the number of successful requests, `failed` the number of failed ones by gRPC
    status. Latency percentiles are None if no request succeeded.
    """

    requests: int
    failed: Mapping[str, int]
    pairs_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class MeasuredSoFar:
    """The metrics of the measurement so far, by the names of the catalogue; sent every second."""

    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FlagsChanged:
    """Other flags than before would describe the last seconds of the measurement.

    `flags` maps each `results.Flag` to its reason; it is empty if they need none.
    """

    flags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CellEnded:
    """A cell has ended, with a status of `results.Status` and its metrics.

    `interrupted`: a stop signal ended it.
    """

    status: str
    error: str | None
    interrupted: bool
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run has ended; `message` says where the results are, `interrupted` by a stop signal."""

    message: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class DashboardListens:
    """The dashboard is ready at `url`; `note` is a remark for the user, or empty."""

    url: str
    note: str


@dataclass(frozen=True, slots=True)
class DashboardRefused:
    """The dashboard cannot start; `message` gives the reason."""

    message: str


@dataclass(frozen=True, slots=True)
class FileKept:
    """The cell process could not write a file: `content` in base64, and the error's `reason`.

    None: it has written the file of this `name` after all.
    """

    name: str
    content: str | None
    reason: str


Event: TypeAlias = (
    SweepStarted
    | CellStarted
    | StageStarted
    | ServerConfigured
    | ServerListens
    | ServerStops
    | ProgressMade
    | WindowMeasured
    | MeasuredSoFar
    | FlagsChanged
    | FileKept
    | CellEnded
    | RunEnded
    | DashboardListens
    | DashboardRefused
)
_KINDS: Mapping[str, Callable[..., Event]] = {kind.__name__: kind for kind in get_args(Event)}
_FIELDS = {name: get_type_hints(kind) for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its time (Unix seconds) and the number of its cell, counted from 0, if any."""

    event: Event
    time_s: float
    cell: int | None


def encode(event: Event, time_s: float, cell: int | None = None) -> str:
    """Return the event as one line of ASCII JSON with a newline. `decode` is the inverse."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    line = {"time_s": time_s, "cell": cell, "event": type(event).__name__, **values}
    return json.dumps(line) + "\n"


def decode(line: str | bytes) -> Recorded | None:
    """Return the event of one line, or None if this version cannot read it.

    A line cannot be read if it is malformed or truncated, or if another version wrote an event of
    an unknown kind or without a required value. Unknown values are ignored.
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
    event = _KINDS[name](**{key: _encodable(values.get(key)) for key in _FIELDS[name]})
    return Recorded(event, values["time_s"], values.get("cell"))


def _encodable(value: Any) -> Any:
    """Escape lone surrogates, as of a path that is not UTF-8: no web page can contain them."""
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _fits(value: object, expected: Any) -> bool:
    """Return whether a value read from JSON has the type of the event's field."""
    if get_origin(expected) is Mapping:  # JSON keys are always text
        _, of_values = get_args(expected)
        return isinstance(value, dict) and all(_fits(item, of_values) for item in value.values())
    if options := get_args(expected):
        return any(_fits(value, option) for option in options)
    if isinstance(value, bool):  # bool is a subclass of int
        return expected is bool
    if expected is float:  # accepts finite numbers only
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, expected)
