"""Which process writes a run, and whether it still runs: a killed process cannot end its runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from crossbench.system.json_text import parse_json

# The start of a process is computed from the clock, which may be set while the process runs. A
# process id is not given out again within this time.
_TOLERANCE_S = 60.0


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A process: its machine, its id, when it started (Unix seconds), and where its id counts.

    `namespace` is that of a container, empty on systems without them: the same id in another
    container on this machine is another process, which cannot be seen from here.
    """

    host: str
    pid: int
    started_s: float
    boot: str
    namespace: str

    @classmethod
    def this(cls) -> RunProcess:
        return cls(
            platform.node(), os.getpid(), psutil.Process().create_time(), _boot(), _namespace()
        )

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> RunProcess | None:
        """Return what `text` wrote; None if it is not readable."""
        try:
            values = parse_json(text)
            return cls(**{**values, "pid": int(values["pid"])})
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    def is_gone(self) -> bool:
        """Return whether the process has ended; False if that cannot be known here."""
        if self.host != platform.node():
            return False
        if self.boot != _boot():
            return True  # the machine has started again since
        if self.namespace != _namespace():
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = abs(process.create_time() - self.started_s) > _TOLERANCE_S
            return is_another or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:  # it may not be looked at
            return False


def _boot() -> str:
    """The id of the machine's start; empty on systems without one."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (it names no path)
    return ""
