"""One copy of a model in the pool, which can unload its model and be replaced when it dies."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from crossbench.backends.base import Backend
from crossbench.serving.computing import Computing
from crossbench.serving.process_engine import ProcessEngine
from crossbench.types import DeviceMemory, Inference, TokenBatch

log = logging.getLogger(__name__)

LIVENESS_CHECK_S = 0.2  # interval for checking that an idle worker process is alive
LOADING_FACTOR = 10.0  # a later load may take so many times as long as the longest one so far


class Engine(Protocol):
    """Computes for a replica: a Backend in this process, or a ProcessEngine."""

    @property
    def device(self) -> str: ...
    def load_model(self) -> None: ...
    def warmup(self, lengths: Sequence[int]) -> None: ...
    def infer(self, batch: TokenBatch) -> Inference: ...
    def memory(self) -> DeviceMemory: ...
    def close(self) -> None: ...


class _Life:
    """An engine and the calls into it. If one of them hangs, the replica starts another life."""

    def __init__(self, backend: Backend, engine: Engine, must_load: bool) -> None:
        self.engine = engine
        in_process = isinstance(engine, ProcessEngine)
        self.compute: Callable[[TokenBatch], Inference] = (
            engine.infer if in_process else Computing(backend).infer
        )
        self.changed = threading.Condition(threading.Lock())  # held while the engine loads
        self.loading = False
        self.loaded = False
        self.must_load = must_load  # it is useless until its model is loaded
        self.active = 0
        self.last_used_s = 0.0

    @property
    def alive(self) -> bool:
        if self.must_load:
            return False
        return not self.loaded or not isinstance(self.engine, ProcessEngine) or self.engine.alive


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
    _load_s: float = field(default=0.0, init=False)
    _warmup_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._life = _Life(self.backend, self.engine, must_load=False)
        liveness_check_s = LIVENESS_CHECK_S if isinstance(self.engine, ProcessEngine) else None
        pauses = [pause for pause in (liveness_check_s, self.idle_seconds) if pause is not None]
        self.idle_check_s = min(pauses, default=None)

    @property
    def callers(self) -> int:
        """Number of concurrent infer() calls that the backend supports."""
        return self.backend.workers

    @property
    def active(self) -> int:
        """Number of infer() calls that run now."""
        return self._life.active

    @property
    def unloaded(self) -> bool:
        """Whether the model is unloaded."""
        return not self._life.loaded

    @property
    def pid(self) -> int | None:
        """The id of the worker process, None if there is none."""
        return self.engine.pid if isinstance(self.engine, ProcessEngine) else None

    @property
    def loading_limit_s(self) -> float | None:
        """How long the load that runs now may take, warm-up included; None if none runs."""
        if not self._life.loading:
            return None
        return LOADING_FACTOR * (self._load_s + self._warmup_s)

    def load(self) -> None:
        """Load the model. Raises the errors of the engine's load_model()."""
        life = self._life
        with life.changed:
            self._load(life)

    def warmup(self, lengths: Sequence[int]) -> None:
        """Warm up with sequences of these token lengths, now and after each later load."""
        self._warmup = lengths
        self._warm_up(self._life)

    def infer(self, batch: TokenBatch) -> Inference:
        """Compute a batch. An unloaded or dead replica is first loaded again.

        Raises:
            ProcessDied: the worker process died while it computed this batch.
            OutOfMemory, WorkerDied: see computing.Computing.
        """
        life = self._life
        with life.changed:
            if not (life.loaded and life.alive):
                self._reload(life)
            life.active += 1
        try:
            return life.compute(batch)
        finally:
            with life.changed:
                life.active -= 1
                life.last_used_s = time.perf_counter()
                if not life.active:
                    life.changed.notify_all()
                    self._close_if_left(life)

    def alive(self) -> bool:
        """Whether the replica can compute. An unloaded one can: it loads its model again."""
        return self._life.alive

    def replace(self) -> None:
        """Load a dead replica again. Raises the errors of the engine's load_model()."""
        life = self._life
        with life.changed:
            if not life.alive:
                log.warning("a worker has died: starting a new one")
                self._reload(life)

    def kill(self) -> bool:
        """Kill the worker process, which ends all calls; return False if there is none.

        Waits for nothing.
        """
        engine = self.engine
        if not isinstance(engine, ProcessEngine):
            return False
        engine.kill()
        return True

    def renew(self) -> None:
        """Leave the engine to the calls that hang in it; replace() then loads another one."""
        copied: Any = self.backend
        self.backend = dataclasses.replace(copied)
        in_process = isinstance(self.engine, ProcessEngine)
        self.engine = ProcessEngine(self.backend) if in_process else self.backend
        self._life = _Life(self.backend, self.engine, must_load=True)

    def unload_if_idle(self) -> float | None:
        """Unload the model if it has been idle for `idle_seconds`.

        Returns the seconds after which to call unload_if_idle() again, or None for never.
        """
        if self.idle_seconds is None:
            return self.idle_check_s
        life = self._life
        with life.changed:
            if not life.loaded:
                return None  # the caller that loads the model again resumes the checks
            left_s = life.last_used_s + self.idle_seconds - time.perf_counter()
            if life.active or left_s > 0:
                return min(self.idle_check_s or left_s, max(left_s, 0.0) or self.idle_seconds)
            life.loaded = False
            life.engine.close()
        release_memory()
        return None

    def memory(self) -> DeviceMemory:
        return self.engine.memory()

    def close(self) -> None:
        """Unload the model, unless a call in this process still computes with it."""
        life = self._life
        with life.changed:
            life.loaded = False
            if life.active and not isinstance(life.engine, ProcessEngine):
                log.warning("a call still computes: the model stays loaded")
                return
            life.engine.close()

    def _reload(self, life: _Life) -> None:
        # Wait until all calls to the dead process have failed, before its channels are closed
        life.changed.wait_for(lambda: not life.active)
        if life.loaded and life.alive:
            return
        life.loaded = False
        life.must_load = True
        self._load(life)
        try:
            self._warm_up(life)
        except BaseException:
            life.loaded = False
            raise
        life.must_load = False
        self._close_if_left(life)

    def _load(self, life: _Life) -> None:
        started_s = time.perf_counter()
        life.loading = True
        try:
            with self.loading:
                life.engine.load_model()
        finally:
            life.loading = False
        life.last_used_s = time.perf_counter()
        life.loaded = True
        self._load_s = max(self._load_s, life.last_used_s - started_s)

    def _warm_up(self, life: _Life) -> None:
        if not self._warmup:
            return
        started_s = time.perf_counter()
        life.loading = True
        try:
            life.engine.warmup(self._warmup)
        finally:
            life.loading = False
        self._warmup_s = max(self._warmup_s, time.perf_counter() - started_s)

    def _close_if_left(self, life: _Life) -> None:
        """Close the engine of an earlier life whose calls have ended after all."""
        if life is not self._life and not life.active:
            life.loaded = False
            life.engine.close()


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
