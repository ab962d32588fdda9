"""Simulated AR(1) processes, and what someone who knows the process would say about their mean."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.intervals import CONFIDENCE

Z_95 = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
PHIS = (0.0, 0.3, 0.6, 0.9)  # lag-1 autocorrelations
Float64Array = NDArray[np.float64]


def ar_process(n: int, phi: float, runs: int, seed: int) -> Float64Array:
    """Return `runs` AR(1) processes of standard normal values, (runs, n)."""
    rng = np.random.default_rng(seed)
    values = np.empty((runs, n))
    values[:, 0] = rng.standard_normal(runs)
    for k in range(1, n):
        noise = rng.standard_normal(runs)
        values[:, k] = phi * values[:, k - 1] + math.sqrt(1 - phi**2) * noise
    return values


def true_half_width(n: int, phi: float) -> float:
    """Return half the interval's width for someone who knows the process."""
    lags = np.arange(1, n)
    return Z_95 * math.sqrt((1 + 2 * float(((1 - lags / n) * phi**lags).sum())) / n)
