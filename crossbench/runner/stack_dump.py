"""Write the stacks of all threads to the cell's log when the parent process asks for it."""

from __future__ import annotations

import faulthandler
import signal

DUMP_SIGNAL = signal.SIGUSR1


def dump_on_signal() -> None:
    """Dump the stacks of all threads to standard error, the cell's log, at `DUMP_SIGNAL`.

    This works even while native code holds the interpreter's lock.
    """
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
