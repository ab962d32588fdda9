"""SIGTERM and SIGHUP (a closed terminal) end a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_INTERRUPTED = 130  # the status that a shell reports for a process that SIGINT ended
OUTPUTS = (1, 2)  # the file descriptors of standard output and standard error


@contextlib.contextmanager
def stop_like_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like SIGINT until the block ends.

    A signal that the process was started to ignore (`nohup`) stays ignored. Outside the main
    thread, where Python allows no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Asked now: a terminal that was closed no longer says that it is one
    terminals = [descriptor for descriptor in OUTPUTS if os.isatty(descriptor)]

    def stop(number: int, _: object) -> None:
        if number == signal.SIGHUP:
            _discard(terminals)
        # A background job of a shell ignores SIGINT, but must still end on these signals
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _discard(terminals: list[int]) -> None:
    """Send what is written to closed terminals nowhere; it would fail and stop the report."""
    if not terminals:
        return
    null_device = os.open(os.devnull, os.O_WRONLY)
    for descriptor in terminals:
        os.dup2(null_device, descriptor)
    os.close(null_device)
