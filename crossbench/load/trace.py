"""load=trace: the arrivals of a file, such as those that production saw, sent again."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossbench.errors import ConfigError
from crossbench.load.open_loop import check_max_in_flight, follow
from crossbench.load.protocol import LoadContext
from crossbench.load.schedule import Schedule
from crossbench.load.sender import Sender
from crossbench.load.sizes import MAX_PAIRS
from crossbench.system.json_text import parse_json
from crossbench.types import RequestRecord

TIME, PAIRS = "arrival_s", "pairs"
_FORMAT = (
    f"a trace is CSV with a header line, or JSON Lines, with {TIME} (seconds, from any start) and, "
    f"if sizes differ, {PAIRS} for each request"
)
MAX_TIME_S = 1e12  # 30,000 years: more is a mistake, or not in seconds
_Rows = Iterator[tuple[int, Mapping[str, Any]]]  # each line's number and its values


@dataclass(frozen=True)
class Trace:
    """Requests at the times and of the sizes that `path` holds, the first one at once.

    `speed` 2 sends them at twice their rate. At most `max_in_flight` wait for their replies; what
    this holds back is sent late, never dropped. The cell ends with the trace at the latest.
    """

    name: str
    labels: Sequence[str]
    context: LoadContext
    path: str | None
    speed: float
    max_in_flight: int | None
    schedule: Schedule = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_max_in_flight(self.max_in_flight)
        if not self.path:
            raise ConfigError("load=trace needs a file: give load.path=FILE")
        if not 0 < self.speed < math.inf:
            raise ConfigError(
                f"load.speed must be a positive number, got {self.speed}: 1 is the trace's own"
            )
        trace = read_trace(Path(self.path).expanduser())
        due_s = trace.due_s / self.speed
        if not np.isfinite(due_s).all():
            raise ConfigError(f"load.speed={self.speed} is too small for the times of {self.path}")
        object.__setattr__(self, "schedule", Schedule(due_s, trace.sizes))

    async def drive(self, sender: Sender) -> None:
        await follow(self.schedule, sender, self.max_in_flight)


def read_trace(path: Path) -> Schedule:
    """The requests of a file, in order of their arrival; the first is due at 0.

    Raises:
        ConfigError: the file cannot be read, or one of its lines cannot be used.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"load.path={path} is not UTF-8 text ({error}): {_FORMAT}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"load.path={path} cannot be read ({reason}): check the path") from error
    rows = _json_lines(text, path) if text.lstrip().startswith("{") else _csv(text, path)
    times: list[float] = []
    sizes: list[int] = []
    for line, row in rows:
        times.append(_number(row, TIME, path, line))
        if row.get(PAIRS) not in (None, ""):
            size = _number(row, PAIRS, path, line)
            if not (size.is_integer() and 1 <= size <= MAX_PAIRS):
                raise ConfigError(
                    f"{path}, line {line}: {PAIRS} is {size:g}, but a request has a whole number "
                    f"of pairs from 1 to {MAX_PAIRS}"
                )
            sizes.append(int(size))
        if sizes and len(sizes) < len(times):
            raise ConfigError(
                f"{path}, line {line}: some lines have {PAIRS} and others do not: give it on every "
                "line, or on none"
            )
    if not times:
        raise ConfigError(f"{path} has no request: {_FORMAT}")
    arrival_s = np.array(times)
    order = np.argsort(arrival_s, kind="stable")
    found = np.array(sizes, dtype=np.int64)[order] if sizes else None
    return Schedule(arrival_s[order] - arrival_s.min(), found)


def trace_lines(records: Sequence[RequestRecord]) -> Iterator[str]:
    """A cell's requests as lines of a CSV trace, in the order in which they were due."""
    yield f"{TIME},{PAIRS}"
    for record in sorted(records, key=lambda record: (record.due_s, record.index)):
        yield f"{record.due_s:.6f},{record.pairs}"


def _csv(text: str, path: Path) -> _Rows:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if header.count(TIME) != 1 or header.count(PAIRS) > 1:
            raise ConfigError(
                f"the first line of {path} must name the columns, with {TIME} once: {_FORMAT}"
            )
        for values in reader:
            if len(values) > len(header):
                raise ConfigError(
                    f"{path}, line {reader.line_num} has {len(values)} values, but the first line "
                    f"has {len(header)}: {_FORMAT}"
                )
            if any(values):
                yield reader.line_num, dict(zip(header, map(str.strip, values), strict=False))
    except csv.Error as error:
        message = f"{path}, line {reader.line_num} is not CSV ({error}): {_FORMAT}"
        raise ConfigError(message) from error


def _json_lines(text: str, path: Path) -> _Rows:
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number} is not JSON ({error}): {_FORMAT}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number} is not a JSON object: {_FORMAT}")
        yield number, row


def _number(row: Mapping[str, Any], key: str, path: Path, line: int) -> float:
    value = row.get(key)
    if value is None:
        raise ConfigError(f"{path}, line {line} has no {key}: {_FORMAT}")
    try:
        number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not abs(number) <= MAX_TIME_S:
        raise ConfigError(
            f"{path}, line {line}: {key} is {value!r:.60}, not a number up to {MAX_TIME_S:g}: "
            f"{_FORMAT}"
        )
    return number
