"""Settings of the worker pool: number and kind of replicas, threads and routing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from crossbench.errors import ConfigError
from crossbench.serving.scheduler import require_at_least

Routing = Literal["load", "round_robin"]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The settings of conf/pool.

    `kind` says whether a replica is a thread of the server or a separate process. Each model has
    `workers` replicas (auto: one per device), each with `threads` CPU threads (auto: the usable
    cores divided among all replicas of all models). `tokenizers` is the number of threads that
    tokenise large requests. `routing` decides which replica takes the next micro-batch.
    `cache_tokens` is the size of the token cache (0: no cache). A replica unloads its model after
    `idle_seconds` without work (None: never). A micro-batch that takes longer than
    `infer_timeout_s` hangs: its worker is replaced. `models` are the additional models to serve.

    Raises:
        ConfigError: a value is invalid.
    """

    name: str
    kind: Literal["thread", "process"]
    workers: int | Literal["auto"]
    threads: int | Literal["auto"]
    tokenizers: int
    cache_tokens: int
    routing: Routing
    idle_seconds: float | None
    infer_timeout_s: float
    models: Any

    def __post_init__(self) -> None:
        for key, value in (("workers", self.workers), ("threads", self.threads)):
            if value != "auto" and value < 1:
                raise ConfigError(
                    f"pool.{key} must be a positive whole number or auto, got {value!r}: "
                    f"give for example pool.{key}=2, which applies to all replicas"
                )
        idle = self.idle_seconds
        if idle is not None and not idle > 0:
            raise ConfigError(
                f"pool.idle_seconds must be a positive number of seconds, got {idle!r}: "
                "give null to keep idle models loaded"
            )
        if not 0 < self.infer_timeout_s < float("inf"):
            raise ConfigError(
                f"pool.infer_timeout_s must be a positive number of seconds, got "
                f"{self.infer_timeout_s!r}: give for example pool.infer_timeout_s=120"
            )
        require_at_least("pool.tokenizers", self.tokenizers, 1)
        require_at_least("pool.cache_tokens", self.cache_tokens, 0)

    def resolve(self, cores: int, models: int = 1, devices: int = 1) -> tuple[int, int]:
        """Return the number of replicas per model and of threads per replica.

        `cores`, `models` and `devices` are the numbers of usable cores, of served models and of
        devices per model.

        Raises:
            ConfigError: `threads` exceeds the number of cores.
        """
        workers = devices if self.workers == "auto" else int(self.workers)
        if self.threads == "auto":
            return workers, max(1, cores // (workers * models))
        threads = int(self.threads)
        if threads > cores:
            raise ConfigError(
                f"pool.threads={threads} exceeds the {cores} cores that this process may use: "
                f"give {cores} or fewer, or auto"
            )
        return workers, threads
