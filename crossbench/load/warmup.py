"""The warm-up: a closed loop that lasts until the server is steady."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from crossbench.load.stop import End
from crossbench.measure.steadiness import MIN_WINDOWS, Steadiness
from crossbench.types import RequestRecord
from crossbench.wording import counted, number


@dataclass
class WarmUp:
    """Ends a warm-up after at least `requests` replies, once the server is steady.

    It ends after `max_seconds` in any case. `requests` is at least the concurrency, so that each
    user has sent one.
    """

    requests: int
    max_seconds: float
    _steadiness: Steadiness = field(default_factory=Steadiness, init=False)
    _replies: int = field(default=0, init=False)
    _succeeded: int = field(default=0, init=False)
    _last_s: float = field(default=0.0, init=False)
    _steady: bool | None = field(default=None, init=False)  # when no more requests were sent

    def note(self, record: RequestRecord) -> None:
        self._replies += 1
        self._succeeded += record.ok
        self._last_s = record.received_s
        self._steadiness.add(record)

    def end(self, sent: int, due_s: float) -> End | None:
        if due_s >= self.max_seconds:
            return End.MAX_SECONDS
        if self._replies < self.requests:
            return None
        self._steady = self._steadiness.steady
        failing = not self._succeeded  # a longer warm-up would not help
        return End.PRECISION if failing or self._steady else None

    def share(self, done: int, elapsed_s: float) -> float:
        return elapsed_s / self.max_seconds

    def warning(self) -> str:
        """Return a warning if the server was not steady at the end; empty if it was.

        It is empty too if every request failed, which the measurement then says.
        """
        steady = self._steady
        if steady or not self._succeeded:
            return ""
        seconds = number(self._last_s)
        if steady is None:
            needed = self._last_s / max(1, self._steadiness.windows) * MIN_WINDOWS
            return (
                f"The warm-up had {counted(self._replies, 'request')} in {seconds} s, too few to "
                "test whether the server was steady: give at least "
                f"warmup_max_seconds={math.ceil(needed * 1.1)}"
            )
        return (
            f"The server never became steady in the warm-up of {seconds} s: its service time still "
            "rose or fell. The first part of the measurement may differ from the rest: give a "
            "longer warm-up (warmup_max_seconds), and check what else runs on the machine"
        )
