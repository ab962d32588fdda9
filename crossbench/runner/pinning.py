"""Cores of their own for client and server, so that neither takes time from the other."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossbench.measure.probes import usable_cores
from crossbench.system.facts import file_text

MIN_CORES = 4  # with fewer, a server that loses one is another server
CORES_PER_CLIENT_CORE = 8
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Cores:
    """The logical CPUs of client and server, by the numbers of the operating system."""

    client: tuple[int, ...]
    server: tuple[int, ...]


def split_cores(cores: Sequence[Sequence[int]]) -> Cores | None:
    """Give the client one of eight cores, at least one, and the rest to the server.

    A core is a list of its logical CPUs, which are not divided. Returns None for fewer than four.
    """
    if len(cores) < MIN_CORES:
        return None
    count = max(1, len(cores) // CORES_PER_CLIENT_CORE)
    client, server = (
        tuple(sorted(cpu for core in part for cpu in core))
        for part in (cores[:count], cores[count:])
    )
    return Cores(client, server)


def own_cores() -> list[list[int]]:
    """Return the physical cores that this process may use, each as a list of its logical CPUs.

    Returns none if the operating system does not pin processes (macOS), or if a quota of the
    cgroup limits the CPU time: client and server share a quota, whatever cores they have.
    """
    if sys.platform != "linux":
        return []
    cpus = os.sched_getaffinity(0)
    if usable_cores() < len(cpus):
        return []
    cores: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        siblings = file_text(_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list")
        cores.setdefault(siblings or str(cpu), []).append(cpu)
    return list(cores.values())


def cpu_list(cpus: Sequence[int]) -> str:
    """Write ascending CPU numbers as Linux does: `0-3,8`."""
    ranges: list[list[int]] = []
    for cpu in cpus:
        if ranges and cpu == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], cpu]
        else:
            ranges.append([cpu])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


@contextlib.contextmanager
def children_on(cpus: Collection[int]) -> Iterator[None]:
    """Start child processes on these CPUs while the context is entered, from this thread only."""
    before = os.sched_getaffinity(0)  # of this thread
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the CPUs are no longer available
            os.sched_setaffinity(0, before)


def pin_this_process(cpus: Collection[int]) -> None:
    """Run all threads of this process on these CPUs, also those that start later.

    Threads that the operating system does not let run there stay where they are.
    """
    pinned: set[int] = set()
    while new := set(_threads()) - pinned:  # a thread may start another one meanwhile
        for thread in new:
            with contextlib.suppress(OSError):  # it has ended, or the CPUs are no longer available
                os.sched_setaffinity(thread, cpus)
        pinned |= new


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]  # noqa: PTH208
