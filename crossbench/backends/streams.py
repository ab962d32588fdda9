"""Run the groups of a micro-batch in parallel on several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from crossbench.backends.bucketing import Cost, cut
from crossbench.types import Inference, TokenBatch

# Computes sequences in ascending order of length; must be safe to call from several threads
Run = Callable[[TokenBatch], Inference]


@dataclass(frozen=True)
class Grouping:
    """How to split a micro-batch into groups: see `bucketing.cut` and `bucketing.Cost`."""

    overhead_tokens: float
    attention_cost: float
    max_tokens: int
    max_pairs: int


class Streams:
    """A pool of `count` single-threaded streams, and one engine that uses all threads.

    A micro-batch is sorted by length and split into groups, which the streams compute, longest
    first. Independent streams do not wait for each other after every operation, as the threads of a
    single call must. A micro-batch that forms a single group goes to `run_wide`, whose threads
    share it, because there is no other work and only its latency matters.
    """

    def __init__(self, count: int, grouping: Grouping, run: Run, run_wide: Run) -> None:
        self._count, self._grouping, self._run, self._run_wide = count, grouping, run, run_wide
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="stream")

    def infer(self, batch: TokenBatch) -> Inference:
        """Return the values in batch order, independent of how the batch was split."""
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
