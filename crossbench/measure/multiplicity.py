"""Critical values for comparing several cells at once, and for looking at a sweep several times.

A 5 % test of each of 66 pairs finds a "difference" in most sweeps of 12 equal cells. The critical
values here keep all statements of one kind right together, with the stated probability:

- `tukey`: all pairs (Tukey 1953; the studentized range, divided by the square root of two)
- `dunnett`: all cells against one baseline (Dunnett, JASA 50, 1955), two-sided

Both are the factor of the standard error of a difference, as Student's t is for one pair. The
degrees of freedom may be any positive number, also infinity. SciPy's `studentized_range.ppf` takes
a second or more for some degrees, and `scipy.stats.dunnett` takes only whole samples, so both
distributions are integrated here; the tests compare them with SciPy and with published tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

_Z = np.linspace(-9.0, 9.0, 181)  # the trapezoid rule converges exponentially for these integrands
_Z_WEIGHTS = np.exp(-(_Z**2) / 2) / math.sqrt(2 * math.pi) * (_Z[1] - _Z[0])
_S_NODES = 160
_TAIL = 1e-13  # probability of the ends of the distribution of the spread that is left out
_RELATIVE_ERROR = 1e-6


def tukey(cells: int, degrees: float, alpha: float) -> float:
    """Return the factor of the standard error for all pairs of `cells` cells; at least 2 cells.

    `degrees` are the degrees of freedom of the standard error, above 0; they are rounded down to
    about 2 %. All intervals together are right with probability 1 - `alpha`.
    """
    return _factor(_range_exceeds, cells, cells * (cells - 1) // 2, coarse(degrees), alpha)


def dunnett(comparisons: int, degrees: float, alpha: float) -> float:
    """Return the factor of the standard error for `comparisons` cells against one baseline.

    The number of runs per cell is the same, so that two comparisons have a correlation of 1/2. The
    arguments are otherwise those of `tukey`.
    """
    return _factor(_any_exceeds, comparisons, comparisons, coarse(degrees), alpha)


def alpha_of_look(block: int, max_blocks: int, first_look: int, alpha: float) -> float:
    """Return the share of `alpha` that the look after `block` blocks may spend.

    There is a look after each block from `first_look` to `max_blocks`, and the shares of all looks
    add up to `alpha`, so that by Bonferroni's inequality all looks together are wrong at most that
    often. The spending function is Lan and DeMets' that resembles O'Brien and Fleming's bounds
    (Biometrika 70, 1983): early looks, at little data, spend very little.

    Raises:
        ValueError: `block` is not between `first_look` and `max_blocks`.
    """
    if not 1 <= first_look <= block <= max_blocks:
        raise ValueError(
            f"a look is after block {first_look} to {max_blocks}, got a look after block {block}"
        )
    spent = _spent(block / max_blocks, alpha)
    return spent if block == first_look else spent - _spent((block - 1) / max_blocks, alpha)


def _spent(share: float, alpha: float) -> float:
    """Return what may be spent in total once `share` (0..1] of the blocks were measured."""
    from scipy.special import ndtr, ndtri

    return float(2 * ndtr(ndtri(alpha / 2) / math.sqrt(share)))


def coarse(degrees: float) -> float:
    """Return the degrees of freedom rounded down, so that few critical values are computed."""
    if degrees < 20:
        return max(math.floor(degrees * 10) / 10, min(degrees, 0.5))
    if not math.isfinite(degrees):
        return math.inf
    unit = 10.0 ** (math.floor(math.log10(degrees)) - 1)
    return math.floor(degrees / unit) * unit


@lru_cache(maxsize=8192)
def _factor(
    exceeds: Callable[[int, Float64Array], Float64Array],
    count: int,
    comparisons: int,
    degrees: float,
    alpha: float,
) -> float:
    """Return the factor whose probability of being exceeded is `alpha`.

    It lies between the one for a single comparison and Bonferroni's for all of them. Between these,
    the logarithm of the probability is nearly linear in that of the factor, so the secant method
    needs few steps; each keeps the root between its two ends (the Illinois rule).
    """
    from scipy.special import ndtri, stdtrit

    def single(share: float) -> float:
        return float(-ndtri(share / 2) if math.isinf(degrees) else -stdtrit(degrees, share / 2))

    if comparisons == 1:
        return single(alpha)
    s, weights = _spread(degrees)

    def error(log_factor: float) -> float:
        probability = float(exceeds(count, math.exp(log_factor) * s) @ weights)
        return math.log(max(probability, 1e-300) / alpha)

    low, high = math.log(single(alpha)), math.log(single(alpha / comparisons)) + 1e-9
    error_low, error_high = error(low), error(high)
    while high - low > _RELATIVE_ERROR and error_low > 0 > error_high:
        middle = low + (high - low) * error_low / (error_low - error_high)
        found = error(middle)
        if abs(found) < _RELATIVE_ERROR:
            return math.exp(middle)
        if found > 0:
            low, error_low, error_high = middle, found, error_high / 2
        else:
            high, error_high, error_low = middle, found, error_low / 2
    return math.exp(high if error_low > 0 else low)


def _spread(degrees: float) -> tuple[Float64Array, Float64Array]:
    """Return nodes and weights of the estimated spread over the true one, each of shape (n,)."""
    if math.isinf(degrees):
        return np.ones(1), np.ones(1)
    from scipy.special import gammainccinv, gammaincinv, gammaln

    half = degrees / 2
    ends = gammaincinv(half, _TAIL) / half, gammainccinv(half, _TAIL) / half
    log_s = np.linspace(math.log(ends[0]) / 2, math.log(ends[1]) / 2, _S_NODES)
    log_density = (
        math.log(2) + half * math.log(half) - gammaln(half)
        + degrees * log_s - half * np.exp(2 * log_s)
    )  # fmt: skip
    return np.exp(log_s), np.exp(log_density) * (log_s[1] - log_s[0])


def _range_exceeds(cells: int, factor: Float64Array) -> Float64Array:
    """Return P(the range of `cells` normal values > sqrt(2) factor), for factors of shape (n,)."""
    from scipy.special import ndtr

    width = math.sqrt(2) * factor[:, None]
    inside = np.maximum(ndtr(_Z) - ndtr(_Z - width), 0.0) ** (cells - 1)
    return np.asarray(1 - cells * (inside @ _Z_WEIGHTS), dtype=np.float64)


def _any_exceeds(comparisons: int, factor: Float64Array) -> Float64Array:
    """Return P(one of several normal values is > sqrt(2) factor away from another normal value).

    The factors have the shape (n,).
    """
    from scipy.special import ndtr

    width = math.sqrt(2) * factor[:, None]
    inside = (ndtr(_Z + width) - ndtr(_Z - width)) ** comparisons
    return np.asarray(1 - inside @ _Z_WEIGHTS, dtype=np.float64)
