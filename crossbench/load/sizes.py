"""Sizes of requests: a distribution over the numbers of pairs, `load.sizes`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossbench.errors import ConfigError

MAX_PAIRS = 100_000  # per request
_DRAWN_AT_ONCE = 1024


@dataclass(frozen=True)
class Sizes:
    """A discrete distribution: `shares` are the probabilities of `pairs`."""

    pairs: tuple[int, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, value: Any) -> Sizes | None:
        """Read `load.sizes`, such as [[10,0.5],[100,0.5]]; None if all requests have one size.

        Raises:
            ConfigError: it is not a list of numbers of pairs and their shares.
        """
        if value is None:
            return None
        rows = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
        if not (rows and all(map(_is_row, rows)) and sum(row[1] for row in rows) < math.inf):
            raise ConfigError(
                f"load.sizes must be a list of [pairs, share], with 1 to {MAX_PAIRS} pairs and a "
                f"share above 0, got {value!r}: give for example load.sizes=[[10,0.5],[100,0.5]]"
            )
        total = sum(float(share) for _, share in rows)
        return cls(tuple(int(n) for n, _ in rows), tuple(float(s) / total for _, s in rows))

    def draw(self, seed: int) -> Iterator[int]:
        """Yield sizes without end, always the same ones for a seed."""
        rng = np.random.default_rng(seed)
        while True:
            yield from rng.choice(self.pairs, _DRAWN_AT_ONCE, p=self.shares).tolist()


def _is_row(row: Any) -> bool:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 2:
        return False
    pairs, share = row
    numbers = not any(isinstance(x, bool) or not isinstance(x, int | float) for x in row)
    return numbers and 1 <= pairs <= MAX_PAIRS and int(pairs) == pairs and 0 < share < math.inf
