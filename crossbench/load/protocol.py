"""The Load protocol: what is sent when. One Python file and one YAML of conf/load each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crossbench.load.sender import Sender, Stop


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What of its cell a load may need, given to it by the composition root.

    `concurrency` is the requests that a closed loop keeps in flight. Whatever a load draws at
    random it draws from `seed`.
    """

    concurrency: int
    seed: int
    stop: Stop


class Load(Protocol):
    """One choice of conf/load: a loop, a schedule or a file that says when requests are due.

    It is made from its YAML's values and a `context: LoadContext`, before anything is loaded, and
    refuses a value that cannot be used with a ConfigError.
    """

    name: str

    @property
    def labels(self) -> Sequence[str]:
        """The dotted keys of the config that name a cell of this load: `load`, `load.rate`."""
        ...

    async def drive(self, sender: Sender) -> None:
        """Have requests sent until the sender may send no more, and wait for their replies."""
        ...
