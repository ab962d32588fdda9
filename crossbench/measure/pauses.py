"""Pauses of this process: garbage collections and page faults that read from a disk."""

from __future__ import annotations

import gc
import resource
import time
from typing import Self


class Pauses:
    """Counts pauses while its context is entered.

    `gc_s` is the time of all garbage collections, which stop every thread of the interpreter.
    """

    def __init__(self) -> None:
        self.gc_s = 0.0
        self.major_page_faults = 0
        self._collecting_since_s: float | None = None

    def __enter__(self) -> Self:
        self._faults_before = _major_page_faults()
        gc.callbacks.append(self._on_gc)
        return self

    def __exit__(self, *exc: object) -> None:
        gc.callbacks.remove(self._on_gc)
        self.major_page_faults = _major_page_faults() - self._faults_before

    def _on_gc(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting_since_s = time.perf_counter()
        elif self._collecting_since_s is not None:
            self.gc_s += time.perf_counter() - self._collecting_since_s


def _major_page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
