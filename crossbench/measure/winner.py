"""The value of the best cell, corrected for having been picked as the best.

Of several cells that may be equal, the one that is picked was probably lucky, so its measured value
is too good. The correction shrinks the values of the cells that may be the best towards their mean,
by as much as their differences are explained by chance (empirical Bayes; Efron and Morris, Journal
of the American Statistical Association 70, 1975).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from crossbench.measure.contrasts import Contrasts


def corrected_best(contrasts: Contrasts, may_be_best: Sequence[int], best: int) -> float | None:
    """Return the corrected value of cell `best`, one of the cells that may be the best.

    Returns None if nothing is known about the spread.
    """
    means = contrasts.fit.means
    if len(may_be_best) == 1:
        return math.exp(float(means[best]))
    variance = contrasts.variance_of_mean(best)
    if variance is None:
        return None
    members = means[list(may_be_best)]
    found = float(members.var(ddof=1))
    kept = max(0.0, 1 - variance / found) if found > 0 else 0.0
    middle = float(members.mean())
    return math.exp(middle + kept * (float(means[best]) - middle))
