"""The lock of an output folder: the system drops it when the run that holds it ends."""

from __future__ import annotations

import fcntl
from pathlib import Path

LOCK_FILE = ".lock"


def is_held(folder: Path) -> bool:
    """Return whether a running process uses the folder."""
    try:
        with (folder / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or a file system without locks
        return False
    return False
