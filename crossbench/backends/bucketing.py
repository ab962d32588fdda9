"""Split a micro-batch into groups of similar length to reduce padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Cost:
    """The cost model of one group, in units of one token's dense computation.

    A group of `b` sequences padded to `w` tokens costs `overhead + b * w * (1 + quadratic * w)`.
    `overhead` is the fixed cost of a call; `quadratic` is the attention cost per attended position.
    """

    overhead: float
    quadratic: float


def cut(
    lengths: NDArray[np.int32], cost: Cost, max_tokens: int, max_pairs: int, parts: int = 1
) -> list[Indices]:
    """Return the groups (indices into `lengths`, shape (n,)) with the least total cost.

    Sequences are sorted by length and cut into runs of at most `max_pairs` sequences and
    `max_tokens` padded tokens (a single sequence may exceed that). Dynamic programming over the
    sorted lengths finds the optimal cuts. With `parts` > 1, no group is larger than an equal share
    of the tokens, so that as many engines can work in parallel. The costliest group comes first.
    """
    count = len(lengths)
    order = np.argsort(lengths, kind="stable")
    widths = lengths[order].astype(np.float64)
    if parts > 1:
        share = -(-int(widths.sum()) // parts)
        max_tokens = min(max_tokens, max(share, int(widths[-1])))
    # best[i]: least cost of the i shortest sequences; their last group starts at start[i]
    best = np.zeros(count + 1)
    start = np.zeros(count + 1, dtype=np.intp)
    for end in range(1, count + 1):
        width = widths[end - 1]
        most = max(1, min(max_pairs, int(max_tokens // width), end))
        sizes = np.arange(1, most + 1)
        costs = best[end - sizes] + cost.overhead + sizes * (width * (1 + cost.quadratic * width))
        chosen = int(np.argmin(costs))
        best[end], start[end] = costs[chosen], end - sizes[chosen]
    groups: list[Indices] = []
    end = count
    while end > 0:
        groups.append(order[start[end] : end])
        end = int(start[end])
    # Longest processing time first: small groups come last, so that engines finish together
    groups.sort(key=lambda group: -len(group) * int(lengths[group[-1]]))
    return groups
