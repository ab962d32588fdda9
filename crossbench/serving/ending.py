"""The end of a server process on SIGINT, SIGTERM or SIGHUP, whatever its threads do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SLACK_S = 1.5  # after `grace_s`, until the process ends in any case

T = TypeVar("T")


class Ending:
    """Turns the first signal into a drain, and any later one into an immediate end.

    While nothing is served yet, the first signal ends the process at once. It also ends
    `grace_s + SLACK_S` after the first signal if the drain has not ended by then. Its children are
    killed, `folders` are removed, and the exit status is 0.
    """

    def __init__(self, grace_s: float) -> None:
        self.folders: list[Path] = []  # temporary ones
        self._grace_s = grace_s
        self._drain: Callable[[], object] | None = None
        self._signals = 0

    def install(self, numbers: Sequence[signal.Signals] = SIGNALS) -> None:
        """Handle these signals from now on. `nohup` keeps SIGHUP ignored."""
        for number in numbers:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                # Not loop.add_signal_handler(): a Python handler also interrupts a busy event loop
                signal.signal(number, lambda *_: self._signalled())

    def drain_by(self, drain: asyncio.Event) -> None:
        """Set `drain` at the first signal: from now on, requests are being served."""
        loop = asyncio.get_running_loop()
        self._drain = lambda: loop.call_soon_threadsafe(drain.set)

    def end(self) -> NoReturn:
        """End this process and its children now, with status 0."""
        # Not sys.exit(): it waits for threads, and engines may hang in their destructors
        for child in _children():
            with contextlib.suppress(psutil.Error):
                child.kill()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals > 1 or self._drain is None:
            self.end()
        timer = threading.Timer(self._grace_s + SLACK_S, self.end)
        timer.daemon = True
        timer.start()
        self._drain()


def _children() -> list[psutil.Process]:
    try:
        return psutil.Process().children(recursive=True)
    except psutil.Error:
        return []


def in_thread(function: Callable[[], T]) -> T:
    """Return what `function` returns, or raise its error; it runs in a thread.

    The main thread only waits, so that it can handle signals while native code of an engine hangs.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="build", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
