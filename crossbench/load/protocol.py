"""The Load protocol. A load decides when requests are sent; it is one Python file and one YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from crossbench.load.schedule import Schedule
from crossbench.load.sender import Sender
from crossbench.load.stop import Limits
from crossbench.measure.steps import Step


@dataclass(frozen=True, slots=True)
class LoadContext:
    """Values of the cell that a load may need. The composition root creates it.

    `concurrency` is the number of requests that a closed loop keeps in flight. A load that uses
    random numbers seeds them with `seed`. `limits` are those of the cell; a cell with few requests
    may go on after them for up to `longest_s` seconds in all (see `load.stop`).
    """

    concurrency: int
    seed: int
    limits: Limits
    longest_s: float


class Load(Protocol):
    """One choice of conf/load, which decides when requests are due.

    It is created from the values of its YAML and a `context: LoadContext` before any model is
    loaded. Its constructor raises ConfigError for an invalid value.
    """

    name: str

    @property
    def labels(self) -> Sequence[str]:
        """The config keys that appear in the cell's name: `load`, `load.rate`."""
        ...

    async def drive(self, sender: Sender) -> None:
        """Send requests until the sender allows no more, then wait for all replies."""
        ...


@runtime_checkable
class HasSchedule(Protocol):
    """A load that knows before the measurement when its requests are due."""

    @property
    def schedule(self) -> Schedule | None:
        """The schedule, which is stored with the records; None if there is none."""
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A load that changes in steps."""

    @property
    def steps(self) -> Sequence[Step]:
        """The steps in order; results and reports show each of them."""
        ...
