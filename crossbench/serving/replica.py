"""One copy of a model in the pool, which can unload its model and be replaced when it dies."""

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

LIVENESS_CHECK_S = 0.2  # interval for checking that an idle worker process is alive


class Engine(Protocol):
    """Computes for a replica: a Backend in this process, or a ProcessEngine."""

    @property
    def device(self) -> str: ...
    def load_model(self) -> None: ...
    def warmup(self, lengths: Sequence[int]) -> None: ...
    def infer(self, batch: TokenBatch) -> Inference: ...
    def memory(self) -> DeviceMemory: ...
    def close(self) -> None: ...


@dataclass
class Replica:
    """One copy of a model, computed by `engine` (`backend` itself, or a process that holds it).

    After `idle_seconds` without work (None: never) the replica unloads its model. The next
    micro-batch loads it again and waits for it. `loading` is a lock that is held while a model is
    loaded, since loading changes process-wide settings such as torch's default dtype.
    """

    backend: Backend
    engine: Engine
    idle_seconds: float | None = None
    loading: AbstractContextManager[object] = field(default_factory=nullcontext)
    idle_check_s: float | None = field(default=None, init=False)
    _warmup: Sequence[int] = field(default=(), init=False, repr=False)
    _loaded: bool = field(default=False, init=False)
    _active: int = field(default=0, init=False)
    _last_used_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        liveness_check_s = LIVENESS_CHECK_S if isinstance(self.engine, ProcessEngine) else None
        pauses = [pause for pause in (liveness_check_s, self.idle_seconds) if pause is not None]
        self.idle_check_s = min(pauses, default=None)

    @property
    def callers(self) -> int:
        """Number of concurrent infer() calls that the backend supports."""
        return self.backend.workers

    @property
    def unloaded(self) -> bool:
        """Whether the model is unloaded."""
        return not self._loaded

    @property
    def pid(self) -> int | None:
        """The id of the worker process, None if there is none."""
        return self.engine.pid if isinstance(self.engine, ProcessEngine) else None

    def load(self) -> None:
        """Load the model. Raises the errors of the engine's load_model()."""
        with self._changed:
            self._load()

    def warmup(self, lengths: Sequence[int]) -> None:
        """Warm up with sequences of these token lengths, now and after each later load."""
        self._warmup = lengths
        self.engine.warmup(lengths)

    def infer(self, batch: TokenBatch) -> Inference:
        """Compute a batch. An unloaded or dead replica is first loaded again.

        Raises:
            WorkerDied: the worker process died while it computed this batch.
        """
        with self._changed:
            if not (self._loaded and self.alive()):
                self._reload()
            self._active += 1
        try:
            return self.engine.infer(batch)
        finally:
            with self._changed:
                self._active -= 1
                self._last_used_s = time.perf_counter()
                if not self._active:
                    self._changed.notify_all()

    def alive(self) -> bool:
        """Whether the worker process runs. An unloaded replica counts as alive."""
        return not self._loaded or not isinstance(self.engine, ProcessEngine) or self.engine.alive

    def replace(self) -> None:
        """Restart a dead replica. Raises the errors of the engine's load_model()."""
        with self._changed:
            if not self.alive():
                log.warning("a worker process has died: starting a new one")
                self._reload()

    def unload_if_idle(self) -> float | None:
        """Unload the model if it has been idle for `idle_seconds`.

        Returns the seconds after which to call unload_if_idle() again, or None for never.
        """
        if self.idle_seconds is None:
            return self.idle_check_s
        with self._changed:
            if not self._loaded:
                return None  # the caller that loads the model again resumes the checks
            left_s = self._last_used_s + self.idle_seconds - time.perf_counter()
            if self._active or left_s > 0:
                return min(self.idle_check_s or left_s, max(left_s, 0.0) or self.idle_seconds)
            self._loaded = False
            self.engine.close()
        release_memory()
        return None

    def memory(self) -> DeviceMemory:
        return self.engine.memory()

    def close(self) -> None:
        with self._changed:
            self._loaded = False
            self.engine.close()

    def _reload(self) -> None:
        # Wait until all calls to the dead process have failed, before its channels are closed
        self._changed.wait_for(lambda: not self._active)
        if self._loaded and self.alive():
            return
        self._loaded = False
        self._load()
        if self._warmup:
            try:
                self.engine.warmup(self._warmup)
            except Exception:
                self._loaded = False
                raise

    def _load(self) -> None:
        with self.loading:
            self.engine.load_model()
        self._loaded = True
        self._last_used_s = time.perf_counter()


def release_memory() -> None:
    """Return the cached memory of a closed model to the device and to the operating system."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory; musl has no such function
            libc.malloc_trim(0)
