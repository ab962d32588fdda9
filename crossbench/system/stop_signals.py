"""SIGTERM and SIGHUP (a closed terminal) end a command as Ctrl-C does.

Python raises KeyboardInterrupt wherever the main thread is. In a finaliser or a callback of the
garbage collector, Python prints the exception and goes on. Such a signal is therefore sent again,
and all signals are noted here for `raise_if_stopped`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

EXIT_INTERRUPTED = 130  # the status that a shell reports for a process that SIGINT ended
OUTPUTS = (1, 2)  # the file descriptors of standard output and standard error
_AGAIN_S = 0.02  # so that the callback has ended
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGHUP: "SIGHUP (its terminal was closed)"}


class _Received:
    """The stop signals of the running command; signals belong to the whole process."""

    def __init__(self) -> None:
        self.numbers: list[signal.Signals] = []
        self.is_held_back = False  # the first signal waits for the end of a `finish_first`
        self.is_sent_again = False  # the next one is no new signal


_received = _Received()


def end_at_once_until_handled() -> None:
    """Let Ctrl-C end this process without a traceback until `stop_like_ctrl_c` handles it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def stopped_by() -> str:
    """Return what stopped this command, for messages: `Ctrl-C`, `SIGTERM`; empty if nothing did."""
    if not _received.numbers:
        return ""
    first = _received.numbers[0]
    return _NAMES.get(first, first.name)


def raise_if_stopped() -> None:
    """Raise KeyboardInterrupt if a stop signal has arrived since the command began."""
    if _received.numbers:
        raise KeyboardInterrupt


@contextlib.contextmanager
def finish_first() -> Iterator[None]:
    """Let the block end before the first stop signal is raised; a second one is raised at once."""
    if _received.numbers or _received.is_held_back:
        yield
        return
    _received.is_held_back = True
    try:
        yield
    finally:
        _received.is_held_back = False
    raise_if_stopped()


@contextlib.contextmanager
def stop_like_ctrl_c() -> Iterator[None]:
    """Note SIGINT, SIGTERM and SIGHUP, and raise KeyboardInterrupt for them, until the block ends.

    A signal that the process was started to ignore (`nohup`) stays ignored. Outside the main
    thread, where Python allows no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Asked now: a terminal that was closed no longer says that it is one
    terminals = [descriptor for descriptor in OUTPUTS if os.isatty(descriptor)]

    def stop(number: int, _: object) -> None:
        if _received.is_sent_again:
            _received.is_sent_again = False
            raise KeyboardInterrupt
        _received.numbers.append(signal.Signals(number))
        if number == signal.SIGHUP:
            _discard(terminals)
        handler = signal.getsignal(signal.SIGINT)
        if handler is not stop and callable(handler) and number != signal.SIGINT:
            signal.raise_signal(signal.SIGINT)  # an event loop has its own way to end
        elif not _received.is_held_back or len(_received.numbers) > 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] is not signal.SIG_IGN]
    _received.numbers.clear()
    hook_before = sys.unraisablehook

    def send_again(dropped: sys.UnraisableHookArgs) -> None:
        if not (issubclass(dropped.exc_type, KeyboardInterrupt) and _received.numbers):
            hook_before(dropped)
            return
        _received.is_sent_again = True
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), _received.numbers[-1]))
        again.daemon = True
        again.start()

    for number in ours:
        signal.signal(number, stop)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook_before
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
