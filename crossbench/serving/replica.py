"""One copy of a model in the pool: awake, resting to free its memory, or dead and replaced."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from crossbench.backends.base import Backend
from crossbench.serving.process_engine import ProcessEngine
from crossbench.types import DeviceMemory, Inference, TokenBatch

log = logging.getLogger(__name__)

WATCH_S = 0.2  # how soon a worker process that dies while it has nothing to do is missed


class Engine(Protocol):
    """What a replica computes with: a Backend here, or a process that holds one."""

    @property
    def device(self) -> str: ...
    def load_model(self) -> None: ...
    def warmup(self, lengths: Sequence[int]) -> None: ...
    def infer(self, batch: TokenBatch) -> Inference: ...
    def memory(self) -> DeviceMemory: ...
    def close(self) -> None: ...


@dataclass
class Replica:
    """`backend`, its `engine` (itself, or a process that holds it) and when it may rest.

    After `idle_seconds` without work (None: never) it frees its model, and loads it again for the
    next micro-batch; who comes meanwhile waits. `loading` is held while it loads: engines in one
    process share settings that loading changes for a moment (torch's default dtype).
    """

    backend: Backend
    engine: Engine
    idle_seconds: float | None = None
    loading: AbstractContextManager[object] = field(default_factory=nullcontext)
    idle_check_s: float | None = field(default=None, init=False)
    _warmup: Sequence[int] = field(default=(), init=False, repr=False)
    _awake: bool = field(default=False, init=False)
    _active: int = field(default=0, init=False)
    _used_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        watch_s = WATCH_S if isinstance(self.engine, ProcessEngine) else None
        pauses = [pause for pause in (watch_s, self.idle_seconds) if pause is not None]
        self.idle_check_s = min(pauses, default=None)

    @property
    def callers(self) -> int:
        """How many callers of infer() at once it makes use of."""
        return self.backend.workers

    @property
    def resting(self) -> bool:
        """It holds no model now."""
        return not self._awake

    @property
    def pid(self) -> int | None:
        """Of its own process, while it has one."""
        return self.engine.pid if isinstance(self.engine, ProcessEngine) else None

    def load(self) -> None:
        """Load the model; raises what the engine's load_model() raises."""
        with self._changed:
            self._load()

    def warmup(self, lengths: Sequence[int]) -> None:
        """Warm up, now and whenever the model is loaded again, on these token lengths."""
        self._warmup = lengths
        self.engine.warmup(lengths)

    def infer(self, batch: TokenBatch) -> Inference:
        """Compute; a resting or dead replica comes back first, and its callers wait for it.

        Raises:
            WorkerDied: its process died over this batch.
        """
        with self._changed:
            if not (self._awake and self.alive()):
                self._come_back()
            self._active += 1
        try:
            return self.engine.infer(batch)
        finally:
            with self._changed:
                self._active -= 1
                self._used_s = time.perf_counter()
                if not self._active:
                    self._changed.notify_all()

    def alive(self) -> bool:
        """False once its process has died; a resting replica is not dead."""
        return not self._awake or not isinstance(self.engine, ProcessEngine) or self.engine.alive

    def replace(self) -> None:
        """Start a dead replica anew; raises what the engine's load_model() raises."""
        with self._changed:
            if not self.alive():
                log.warning("a worker process has died: starting another one")
                self._come_back()

    def rest(self) -> float | None:
        """Free the model if it is due; answers after how many seconds to ask again, or None."""
        if self.idle_seconds is None:
            return self.idle_check_s
        with self._changed:
            if not self._awake:
                return None  # who wakes it looks after it
            left_s = self._used_s + self.idle_seconds - time.perf_counter()
            if self._active or left_s > 0:
                return min(self.idle_check_s or left_s, max(left_s, 0.0) or self.idle_seconds)
            self._awake = False
            self.engine.close()
        release_memory()
        return None

    def memory(self) -> DeviceMemory:
        return self.engine.memory()

    def close(self) -> None:
        with self._changed:
            self._awake = False
            self.engine.close()

    def _come_back(self) -> None:
        # Callers of a process that died have all failed before its channels are closed
        self._changed.wait_for(lambda: not self._active)
        if self._awake and self.alive():
            return
        self._awake = False
        self._load()
        if self._warmup:
            try:
                self.engine.warmup(self._warmup)
            except Exception:
                self._awake = False
                raise

    def _load(self) -> None:
        with self.loading:
            self.engine.load_model()
        self._awake = True
        self._used_s = time.perf_counter()


def release_memory() -> None:
    """Give back what a closed model has left in caches: the device's, then the C library's."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory for itself; musl has no such
            libc.malloc_trim(0)
