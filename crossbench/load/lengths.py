"""Token lengths of MS MARCO's queries and passages, and the comparison of a data set with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossbench.types import Int32Array, Int64Array

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
# Throughput changes about in proportion to the mean length, so a larger deviation is reported
_MAX_DEVIATION = 0.25


@dataclass(frozen=True, slots=True)
class LengthTable:
    """A distribution of token lengths, without special tokens: quantiles at PERCENTILES."""

    smallest: int
    quantiles: tuple[int, ...]
    largest: int
    mean: float

    def inverse_cdf(self, probability: NDArray[np.float64]) -> Int64Array:
        """Return lengths in tokens at probabilities in [0, 1], interpolated between quantiles."""
        known = (0.0, *(percent / 100 for percent in PERCENTILES), 1.0)
        values = (self.smallest, *self.quantiles, self.largest)
        return np.rint(np.interp(probability, known, values)).astype(np.int64)


# MS MARCO passage ranking with BERT's tokenizer (TREC DL 2019 passages, dev queries).
PASSAGES = LengthTable(20, (31, 41, 48, 58, 71, 102, 132, 147, 181), 258, 81.7)
QUERIES = LengthTable(2, (3, 3, 4, 5, 7, 8, 10, 12, 16), 42, 7.0)


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Statistics of token lengths: count, mean, quantiles at PERCENTILES, minimum and maximum."""

    count: int
    mean: float
    smallest: int
    quantiles: tuple[float, ...]
    largest: int


def summarise(lengths: Sequence[int] | Int32Array) -> LengthSummary:
    """Return statistics of token lengths, shape (n,).

    Raises:
        ValueError: there are no lengths.
    """
    if len(lengths) == 0:
        raise ValueError("no lengths to summarise")
    values = np.asarray(lengths)
    return LengthSummary(
        count=len(values),
        mean=float(values.mean()),
        smallest=int(values.min()),
        quantiles=tuple(float(value) for value in np.percentile(values, PERCENTILES)),
        largest=int(values.max()),
    )


def length_warnings(queries: LengthSummary, passages: LengthSummary) -> list[str]:
    """Return a sentence for queries and for passages if their lengths differ from MS MARCO's."""
    warnings = []
    for kind, sent, table in (("Queries", queries, QUERIES), ("Passages", passages, PASSAGES)):
        median, expected = sent.quantiles[PERCENTILES.index(50)], table.quantiles[4]
        ratios = (sent.mean / table.mean, median / expected)
        if any(not 1 - _MAX_DEVIATION <= ratio <= 1 + _MAX_DEVIATION for ratio in ratios):
            warnings.append(
                f"{kind} have {sent.mean:.1f} tokens on average (median {median:.0f}), but in "
                f"MS MARCO {table.mean:.1f} (median {expected}): expect other throughput and "
                "latency on MS MARCO."
            )
    return warnings
