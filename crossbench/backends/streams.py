"""Run the groups of a micro-batch side by side on a few threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from crossbench.backends.bucketing import Cost, cut
from crossbench.types import Inference, TokenBatch

# Runs sequences in ascending order of length; must be safe to call from several threads.
Run = Callable[[TokenBatch], Inference]


@dataclass(frozen=True)
class Grouping:
    """How a micro-batch is cut: see `bucketing.cut` and `bucketing.Cost`."""

    overhead_tokens: float
    attention_cost: float
    max_tokens: int
    max_pairs: int


class Streams:
    """`count` single-threaded engines, and one that may use all threads.

    A micro-batch is sorted by length, cut into groups, and computed by the streams, longest group
    first: independent streams need not wait for each other after every operation, as threads that
    share one call must. A micro-batch that is one group goes to `run_wide`, whose threads share
    it: nothing else is there to do, so its latency counts.
    """

    def __init__(self, count: int, grouping: Grouping, run: Run, run_wide: Run) -> None:
        self._count, self._grouping, self._run, self._run_wide = count, grouping, run, run_wide
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="stream")

    def infer(self, batch: TokenBatch) -> Inference:
        """Values in the batch's order, whatever order and company they were computed in."""
        if len(batch) == 1:
            return self._run_wide(batch)
        grouping = self._grouping
        cost = Cost(grouping.overhead_tokens, grouping.attention_cost)
        groups = cut(batch.lengths, cost, grouping.max_tokens, grouping.max_pairs, self._count)
        parts = [batch.select(group) for group in groups]
        if len(parts) == 1:
            results = [self._run_wide(parts[0])]
        else:
            results = list(self._threads.map(self._run, parts))
        values = np.empty((len(batch), *results[0].values.shape[1:]), dtype=np.float32)
        for group, result in zip(groups, results, strict=True):
            values[group] = result.values
        return Inference(values, sum(result.tokens_computed for result in results))

    def close(self) -> None:
        self._threads.shutdown()
