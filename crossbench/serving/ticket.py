"""A request in the worker pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossbench.errors import CrossbenchError
from crossbench.types import Float32Array, TokenBatch


@dataclass(slots=True, eq=False)
class Ticket:
    """One request in the pool.

    `done` is called once, from a worker thread or from the thread that closes the pool. Then either
    `values`, (n,) or (n, dim), or `error` is set. `left` is the number of sequences that are not
    computed yet, `waiting_tokens` the number of tokens that no worker has taken. Times are in
    seconds of `time.perf_counter`.
    """

    number: int
    batch: TokenBatch
    deadline_s: float | None
    done: Callable[[Ticket], None]
    submitted_s: float
    left: int
    waiting_tokens: int = 0
    started_s: float = 0.0
    finished_s: float = 0.0
    values: Float32Array | None = None
    error: CrossbenchError | None = None
    closed: bool = False

    @property
    def queue_ms(self) -> float:
        return (self.started_s - self.submitted_s) * 1e3

    @property
    def infer_ms(self) -> float:
        return (self.finished_s - self.started_s) * 1e3

    def tokens_of(self, rows: NDArray[np.intp]) -> int:
        """Return the number of tokens of the sequences at these indices."""
        if len(rows) == len(self.batch):
            return self.batch.total_tokens
        return int(self.batch.lengths[rows].sum())

    def part(self, rows: NDArray[np.intp]) -> TokenBatch:
        """Return the sequences at these ascending indices."""
        return self.batch if len(rows) == len(self.batch) else self.batch.select(rows)
