"""How much of the machine's CPU time the run's own processes used, and how much others did."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from crossbench.system.facts import file_text

_FIELDS = 8  # of a core in /proc/stat, up to steal
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuCounters:
    """Counters in seconds, of which only differences have a meaning; None: not on this system.

    `busy_s`, `idle_s` and `stolen_s` are sums over the run's cores. `ours_s` is the CPU time of the
    run's processes. `waiting_s` is the time during which some task waited for a core (PSI `some`).
    """

    time_s: float
    busy_s: float
    idle_s: float
    stolen_s: float | None
    ours_s: float
    waiting_s: float | None


@dataclass(frozen=True, slots=True)
class CpuUse:
    """The use of the run's `cores` over `period_s`: `ours`, `others` and `idle` in cores.

    `steal` is the share of the CPU time wanted that a hypervisor gave to other machines, and
    `pressure` the share of the period during which some task waited for a core. None: unknown.
    """

    period_s: float
    cores: int
    ours: float
    others: float
    idle: float
    steal: float | None
    pressure: float | None

    @property
    def taken(self) -> float:
        """The cores that others used beyond what was idle, so that ours had to do without them.

        While a whole core is idle, a thread of ours that wants to run finds one.
        """
        return max(0.0, self.others - self.idle) if self.idle < 1 else 0.0

    @property
    def stolen(self) -> float:
        """The cores that a hypervisor gave to other machines while this one wanted them."""
        share = min(self.steal or 0.0, 0.99)
        return (self.ours + self.others) * share / (1 - share)

    @classmethod
    def between(cls, first: CpuCounters, last: CpuCounters, cores: int) -> CpuUse | None:
        """Return the use between two readings, None if the machine's counters do not advance.

        Sandboxes may hide these counters. The kernel counts the machine's time in ticks and that
        of a process exactly, so `others` may come out slightly below 0; it is then 0.
        """
        period_s = last.time_s - first.time_s
        busy_s, idle_s = last.busy_s - first.busy_s, last.idle_s - first.idle_s
        if period_s <= 0 or busy_s + idle_s <= 0:
            return None
        ours_s = max(0.0, last.ours_s - first.ours_s)
        steal = pressure = None
        if first.stolen_s is not None and last.stolen_s is not None:
            stolen_s = last.stolen_s - first.stolen_s
            steal = stolen_s / max(busy_s + stolen_s, _TICK_S)
        if first.waiting_s is not None and last.waiting_s is not None:
            pressure = (last.waiting_s - first.waiting_s) / period_s
        return cls(
            period_s=period_s,
            cores=cores,
            ours=ours_s / period_s,
            others=max(0.0, busy_s - ours_s) / period_s,
            idle=idle_s / period_s,
            steal=steal,
            pressure=pressure,
        )


class CpuLoad:
    """Reads the counters of the machine and of the processes from `root_pid` down.

    `cores` is the number of cores that the root may use. Client and server may be pinned to some.
    """

    def __init__(self, root_pid: int) -> None:
        self._root = psutil.Process(root_pid)
        self._cores = self._root.cpu_affinity() if sys.platform == "linux" else None
        self.cores = len(self._cores) if self._cores is not None else os.cpu_count() or 1
        self._ours: Sequence[psutil.Process] = [self._root]
        self.find_processes()

    def find_processes(self) -> bool:
        """Look for new processes of the run and return whether there are any.

        This takes milliseconds, so read() does not do it.
        """
        known = self._ours
        with contextlib.suppress(psutil.Error):  # the root is ending, and this process with it
            self._ours = [self._root, *self._root.children(recursive=True)]
        return not {*self._ours} <= {*known}

    def read(self) -> CpuCounters:
        busy_s, idle_s, stolen_s = _machine_s(self._cores)
        return CpuCounters(
            time_s=time.perf_counter(),
            busy_s=busy_s,
            idle_s=idle_s,
            stolen_s=stolen_s,
            ours_s=sum(map(cpu_s, self._ours)),
            waiting_s=_waiting_s(),
        )


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU time of a process and of its children that have ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended, so its time is in that of its parent
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _machine_s(cores: Sequence[int] | None) -> tuple[float, float, float | None]:
    """Return busy, idle and stolen seconds of these cores, or of all (None)."""
    if cores is None:
        times = psutil.cpu_times()
        return times.user + times.nice + times.system, times.idle, None
    wanted = {f"cpu{core}" for core in cores}
    busy = idle = stolen = 0
    for line in file_text("/proc/stat").splitlines():
        name, *values = line.split()
        if name in wanted and len(values) >= _FIELDS:
            # guest time is in user time
            user, nice, system, idle_, iowait, irq, softirq, steal = map(int, values[:_FIELDS])
            busy += user + nice + system + irq + softirq
            idle += idle_ + iowait
            stolen += steal
    return busy * _TICK_S, idle * _TICK_S, stolen * _TICK_S


def _waiting_s() -> float | None:
    """Return for how long some task waited for a core (`some total`), None without PSI."""
    found = re.search(r"^some .*total=(\d+)", file_text("/proc/pressure/cpu"), re.MULTILINE)
    return int(found[1]) / 1e6 if found else None
