"""Write the stacks of all threads to stderr when another process asks for it by a signal."""

from __future__ import annotations

import faulthandler
import signal

DUMP_SIGNAL = signal.SIGUSR1


def dump_on_signal() -> None:
    """Dump the stacks of all threads to standard error at `DUMP_SIGNAL`.

    Each Python process of a cell calls this: their standard error is the cell's log. It works even
    while native code holds the interpreter's lock.
    """
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
