"""Where the processes of Ray report: replicas that cannot start, and the proxies."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from crossbench.errors import CrossbenchError, TargetDied
from crossbench.wording import error_text

APP = "crossbench"
DEPLOYMENT = "Scorer"
NAMESPACE = "crossbench"
ROSTER = "crossbench_roster"


@dataclass
class Roster:
    """A Ray actor, which lives as long as the process that deployed the server.

    Machines are named by their IP address.
    """

    begun: set[str] = field(default_factory=set)
    failure: tuple[CrossbenchError, str] | None = None
    machine_pids: list[tuple[str, int]] = field(default_factory=list)

    def begin(self, replica: str) -> None:
        """Note that Ray has found a place for a replica, which now loads its model."""
        self.begun.add(replica)

    def fail(self, error: CrossbenchError, trace: str) -> None:
        """Note why a replica cannot start, unless another one has told already."""
        self.failure = self.failure or (error, trace)

    def state(self) -> tuple[int, tuple[CrossbenchError, str] | None]:
        """Return the number of replicas that have begun, and why one has failed."""
        return len(self.begun), self.failure

    def add_proxy(self, machine: str, pid: int) -> None:
        self.machine_pids.append((machine, pid))

    def proxies(self) -> list[tuple[str, int]]:
        """Return the machine and the process id of every proxy that has started."""
        return self.machine_pids


def told_failure(machine: str, error: Exception) -> tuple[CrossbenchError, str]:
    """Return an error of a replica for the process that deployed it, and its stack trace."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, CrossbenchError):
        return error, trace
    return TargetDied(f"the replica on {machine} failed: {error_text(error)}"), trace
