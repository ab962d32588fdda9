"""End a cell that hangs: the whole cell has a time limit, and so has each of its stages."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from crossbench.quality.sample import QualityCheck
from crossbench.runner.load import build_stop
from crossbench.settings.plan import CellPlan
from crossbench.system.stack_dump import DUMP_SIGNAL
from crossbench.wording import number

SLACK_S = 60.0  # for starting, stopping and writing, in each stage
_DUMP_S = 0.5  # for writing the stacks of one process
_BACKEND_METHODS = frozenset({"load_model", "warmup", "infer"})  # of backends outside crossbench
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x")
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$')


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a cell may take, and each of its stages by name; stages without one have none."""

    cell_s: float
    stages_s: Mapping[str, float]


def time_limits(plan: CellPlan) -> TimeLimits:
    """Return the limits of a cell: `cell_timeout_s`, or the sum of its stages' limits."""
    settings, check = plan.settings, plan.quality.build()
    request_s = float(plan.load.values["timeout_s"]) + SLACK_S
    stages_s = {
        "preparing model and data": settings.loading_timeout_s,
        "loading and compiling": settings.loading_timeout_s,
        "warming up": settings.warmup_max_seconds + request_s,
        "measuring": build_stop(plan).longest_s + request_s,
    }
    if isinstance(check, QualityCheck):
        checked_s = max(check.max_seconds, check.longest_seconds) + check.timeout_s + SLACK_S
        stages_s["checking quality"] = checked_s
        stages_s["computing the reference"] = (
            settings.loading_timeout_s + check.reference_max_seconds + check.timeout_s + SLACK_S
        )
    return TimeLimits(settings.cell_timeout_s or sum(stages_s.values()), stages_s)


class Watchdog:
    """Ends the process group of a cell that exceeds a limit, after a dump of all its stacks.

    `exceeded` then says which limit it was.
    """

    def __init__(self, child: subprocess.Popen[str], limits: TimeLimits) -> None:
        self.exceeded = ""
        self._child = child
        self._limits = limits
        self._stage: threading.Timer | None = None
        reason = f"it took longer than {number(limits.cell_s)} s (cell_timeout_s)"
        self._cell = self._start(limits.cell_s, reason)

    def stage(self, name: str) -> None:
        """Restart the clock of the stages: a stage has begun."""
        if self._stage is not None:
            self._stage.cancel()
        limit_s = self._limits.stages_s.get(name)
        if limit_s is not None:
            reason = f"the stage '{name}' took longer than {number(limit_s)} s"
            self._stage = self._start(limit_s, reason)

    def close(self) -> None:
        """Stop watching."""
        for timer in (self._cell, self._stage):
            if timer is not None:
                timer.cancel()

    def _start(self, limit_s: float, reason: str) -> threading.Timer:
        timer = threading.Timer(limit_s, self._end, [reason])
        timer.daemon = True
        timer.start()
        return timer

    def _end(self, reason: str) -> None:
        if self._child.poll() is not None:
            return
        self.exceeded = reason
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # In turn, since they write to the same log. A worker or server process of the cell,
            # in which the backend may run, comes before the process that waits for it
            for process in reversed([self._child.pid, *self._descendants()]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, DUMP_SIGNAL)
                    time.sleep(_DUMP_S)
            os.killpg(self._child.pid, signal.SIGKILL)

    def _descendants(self) -> list[int]:
        try:
            children = psutil.Process(self._child.pid).children(recursive=True)
        except psutil.Error:
            return []
        return [child.pid for child in children]


def place_of_hang(log: Path) -> str:
    """Return where a cell hung, from the stacks in its log: `noop.py:80 in infer`; or empty.

    It is the innermost frame of the thread that computes (in crossbench/backends, or in a method of
    another backend), or else of the main thread.
    """
    lines = log.read_text("utf-8", errors="replace").splitlines()
    threads: list[list[re.Match[str]]] = []
    current = 0
    for line in lines:
        if _THREAD.match(line):
            current = len(threads) if line.startswith("Current") else current
            threads.append([])
        elif threads and (found := _FRAME.match(line)):
            threads[-1].append(found)
    if not threads:
        return ""
    computing = [frames for frames in threads if any(map(_is_of_a_backend, frames))]
    frames = computing[0] if computing else threads[current]
    if not frames:
        return ""
    own = next((frame for frame in frames if _is_of_a_backend(frame)), None)
    own = own or next((frame for frame in frames if "/crossbench/" in frame["file"]), frames[0])
    return f"{Path(own['file']).name}:{own['line']} in {own['name']}"


def _is_of_a_backend(frame: re.Match[str]) -> bool:
    in_library = "/site-packages/" in frame["file"]
    of_server = "/crossbench/serving/" in frame["file"]  # calls a backend, perhaps in a process
    return not (in_library or of_server) and (
        "/crossbench/backends/" in frame["file"] or frame["name"] in _BACKEND_METHODS
    )
