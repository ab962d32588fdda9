"""How long MS MARCO's queries and passages are in tokens, and whether a data set is like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossbench.types import Int32Array, Int64Array

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
# A mean or median off by more than this share changes throughput by about as much.
_FAR = 0.25


@dataclass(frozen=True, slots=True)
class LengthTable:
    """A distribution of token lengths, without special tokens: quantiles at PERCENTILES."""

    smallest: int
    quantiles: tuple[int, ...]
    largest: int
    mean: float

    def inverse_cdf(self, probability: NDArray[np.float64]) -> Int64Array:
        """Lengths in tokens at the given probabilities in [0, 1], straight between quantiles."""
        at = (0.0, *(percent / 100 for percent in PERCENTILES), 1.0)
        values = (self.smallest, *self.quantiles, self.largest)
        return np.rint(np.interp(probability, at, values)).astype(np.int64)


# MS MARCO passage ranking with BERT's tokenizer (TREC DL 2019 passages, dev queries).
PASSAGES = LengthTable(20, (31, 41, 48, 58, 71, 102, 132, 147, 181), 258, 81.7)
QUERIES = LengthTable(2, (3, 3, 4, 5, 7, 8, 10, 12, 16), 42, 7.0)


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Token lengths that were sent: count, mean, quantiles at PERCENTILES, extremes."""

    count: int
    mean: float
    smallest: int
    quantiles: tuple[float, ...]
    largest: int


def summarise(lengths: Sequence[int] | Int32Array) -> LengthSummary:
    """Summary of token lengths, shape (n,).

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
    """A sentence for each kind of text whose lengths are far from MS MARCO's; mostly none."""
    warnings = []
    for kind, sent, table in (("Queries", queries, QUERIES), ("Passages", passages, PASSAGES)):
        median, expected = sent.quantiles[PERCENTILES.index(50)], table.quantiles[4]
        ratios = (sent.mean / table.mean, median / expected)
        if any(not 1 - _FAR <= ratio <= 1 + _FAR for ratio in ratios):
            warnings.append(
                f"{kind} are {sent.mean:.1f} tokens long on average (median {median:.0f}), "
                f"MS MARCO's {table.mean:.1f} (median {expected}): throughput and latency do not "
                "carry over to MS MARCO."
            )
    return warnings
