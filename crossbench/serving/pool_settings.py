"""How many replicas a server runs, as what, and which one computes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from crossbench.errors import ConfigError
from crossbench.serving.scheduler import require_at_least

Routing = Literal["load", "round_robin"]


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The choices of conf/pool.

    `kind` is what a replica is: a thread of the server, or a process of its own. `workers` replicas
    of each model run (auto: one), on `threads` CPU threads each (auto: the usable cores, shared by
    all replicas of all models), beside `tokenizers` tokenizer threads. `routing` says which replica
    takes the next micro-batch. `cache_tokens` bounds the token ids of texts that are kept between
    requests (0: none are). `models` are served beside the cell's own: see conf/pool.

    Raises:
        ConfigError: a value is none of those that work.
    """

    name: str
    kind: Literal["thread", "process"]
    workers: int | Literal["auto"]
    threads: int | Literal["auto"]
    tokenizers: int
    cache_tokens: int
    routing: Routing
    idle_seconds: float | None
    models: Any

    def __post_init__(self) -> None:
        for key, value in (("workers", self.workers), ("threads", self.threads)):
            if value != "auto" and value < 1:
                raise ConfigError(
                    f"pool.{key} must be a positive whole number or auto, got {value!r}: "
                    f"give for example pool.{key}=2; all replicas get the same"
                )
        idle = self.idle_seconds
        if idle is not None and not idle > 0:
            raise ConfigError(
                f"pool.idle_seconds must be a positive number of seconds, got {idle!r}: "
                "give null for never"
            )
        require_at_least("pool.tokenizers", self.tokenizers, 1)
        require_at_least("pool.cache_tokens", self.cache_tokens, 0)

    def resolve(self, cores: int, models: int = 1, devices: int = 1) -> tuple[int, int]:
        """Replicas of each of so many models, and the threads of each replica on so many cores.

        `devices` is what the replicas of a model are spread over: auto gives one to each.

        Raises:
            ConfigError: a replica would get more threads than there are cores.
        """
        workers = devices if self.workers == "auto" else int(self.workers)
        if self.threads == "auto":
            return workers, max(1, cores // (workers * models))
        threads = int(self.threads)
        if threads > cores:
            raise ConfigError(
                f"pool.threads={threads} is more than the {cores} cores that this process may "
                f"use: give {cores} or less, or auto"
            )
        return workers, threads
