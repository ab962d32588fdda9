"""When requests are due: a schedule, drawn from a seed before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossbench.errors import ConfigError
from crossbench.system.rows import save_rows

SCHEDULE_FILE = "schedule.parquet"
MAX_CV = 10  # with more, so few bursts carry all requests that the rate is a matter of luck
MAX_REQUESTS = 5_000_000  # 80 MB of schedule; more is a mistyped rate


@dataclass(frozen=True)
class Schedule:
    """Requests in the order in which they are due.

    `due_s` is float64 (n,), ascending, in seconds since the start of the measurement. `sizes` is
    int64 (n,), the pairs of each request; None if every request has the cell's own size.
    """

    due_s: NDArray[np.float64]
    sizes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.due_s)

    def __iter__(self) -> Iterator[tuple[float, int | None]]:
        """Each request's due time in seconds, and its pairs."""
        sizes = [None] * len(self) if self.sizes is None else self.sizes.tolist()
        return zip(self.due_s.tolist(), sizes, strict=True)

    def part(self, first: int, end: int) -> Schedule:
        """Return the requests from place `first` up to `end`."""
        return Schedule(
            self.due_s[first:end], None if self.sizes is None else self.sizes[first:end]
        )

    @property
    def variation(self) -> float:
        """The coefficient of variation of the times between requests; 1 if there are too few."""
        gaps_s = np.diff(self.due_s)
        return float(gaps_s.std() / gaps_s.mean()) if len(gaps_s) > 1 and gaps_s.any() else 1.0

    def save(self, folder: Path) -> Path:
        """Write it to `schedule.parquet` in this folder.

        Raises:
            OSError: the file cannot be written.
        """
        rows = [_Due(due_s, size) for due_s, size in self]
        return save_rows(rows, {"due_s": "float64", "pairs": "int64"}, folder / SCHEDULE_FILE)


@dataclass(frozen=True, slots=True)
class _Due:
    due_s: float
    pairs: int | None


def arrivals(
    rate: float, cv: float, seconds: float, most: int | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return due times before `seconds` of at most `most` requests (None: no limit), float64 (n,).

    Requests are due at `rate` per second.

    The times between requests are independent and follow a gamma distribution with coefficient of
    variation `cv`: 0 is a constant rate, 1 a Poisson process, and above 1 requests come in bursts.
    A constant rate begins at once, another with its first gap.

    Raises:
        ConfigError: `rate` or `cv` is out of range, or the schedule would be too long.
    """
    if not 0 < rate < np.inf:
        raise ConfigError(
            f"load.rate must be a positive number of requests per second, got {rate}: give for "
            "example load.rate=2"
        )
    if not 0 <= cv <= MAX_CV:
        raise ConfigError(
            f"load.cv must be from 0 to {MAX_CV}, got {cv}: 0 is a constant rate, 1 is "
            "load=poisson, and 2 has clear bursts"
        )
    expected = rate * seconds if most is None else min(rate * seconds, most)
    if expected > MAX_REQUESTS:
        raise ConfigError(
            f"the load needs {expected:.3g} requests ({rate:g} per second for {seconds:g} s), more "
            f"than {MAX_REQUESTS}: give a lower rate, or requests=N"
        )
    most = MAX_REQUESTS if most is None else most
    if cv == 0:
        due_s = np.arange(int(np.ceil(expected))) / rate
        return due_s[due_s < seconds]
    parts: list[NDArray[np.float64]] = []
    last_s, count = 0.0, 0
    while last_s < seconds and count < most:
        shape = 1 / cv**2
        gaps = rng.gamma(shape, 1 / (rate * shape), max(16, int(expected - count) + 1))
        parts.append(last_s + np.cumsum(gaps))
        last_s, count = float(parts[-1][-1]), count + len(gaps)
    due_s = np.concatenate(parts)[:most]
    return due_s[due_s < seconds]
