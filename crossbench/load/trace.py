"""load=trace: the arrivals of a file, such as those that production saw, sent again."""

from __future__ import annotations

import csv
import json
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
from crossbench.types import RequestRecord

TIME, PAIRS = "arrival_s", "pairs"
_FORMAT = (
    f"a trace is CSV with a header line, or JSON Lines, with {TIME} (seconds, from any start) and, "
    f"if sizes differ, {PAIRS} for each request"
)
MAX_PAIRS = 100_000


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
        object.__setattr__(self, "schedule", Schedule(trace.due_s / self.speed, trace.sizes))

    async def drive(self, sender: Sender) -> None:
        await follow(self.schedule, sender, self.max_in_flight)


def read_trace(path: Path) -> Schedule:
    """The requests of a file, in order of their arrival; the first is due at 0.

    Raises:
        ConfigError: the file cannot be read, or one of its lines cannot be used.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"load.path={path} cannot be read ({error}): {_FORMAT}") from error
    rows = _json_lines(text, path) if text.lstrip().startswith("{") else _csv(text, path)
    times: list[float] = []
    sizes: list[int] = []
    for line, row in rows:
        times.append(_number(row, TIME, path, line))
        if row.get(PAIRS) not in (None, ""):
            size = _number(row, PAIRS, path, line)
            if not (size.is_integer() and 1 <= size <= MAX_PAIRS):
                raise ConfigError(
                    f"{path}, line {line}: {PAIRS} is {size:g}, not a whole number from 1 to "
                    f"{MAX_PAIRS}"
                )
            sizes.append(int(size))
        if sizes and len(sizes) < len(times):
            raise ConfigError(
                f"{path}, line {line}: {PAIRS} is missing, though earlier lines have it: give it "
                "on every line, or on none"
            )
    if not times:
        raise ConfigError(f"{path} holds no request: {_FORMAT}")
    arrival_s = np.array(times)
    order = np.argsort(arrival_s, kind="stable")
    found = np.array(sizes, dtype=np.int64)[order] if sizes else None
    return Schedule(arrival_s[order] - arrival_s.min(), found)


def trace_lines(records: Sequence[RequestRecord]) -> Iterator[str]:
    """A cell's requests as lines of a CSV trace, in the order in which they were due."""
    yield f"{TIME},{PAIRS}"
    for record in sorted(records, key=lambda record: (record.due_s, record.index)):
        yield f"{record.due_s:.6f},{record.pairs}"


def _csv(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines())
    if TIME not in (reader.fieldnames or ()):
        raise ConfigError(f"{path} has no column {TIME} in its first line: {_FORMAT}")
    for row in reader:
        yield reader.line_num, row


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number} is not JSON ({error}): {_FORMAT}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number} is not a JSON object: {_FORMAT}")
        yield number, row


def _number(row: Mapping[str, Any], key: str, path: Path, line: int) -> float:
    value = row.get(key)
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{path}, line {line}: {key} is {value!r}, not a number: {_FORMAT}")
    return number
