"""What the runs of `python -m crossbench.selfcheck` show: spread, visible differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossbench.measure.catalogue import P95_LATENCY, RATES
from crossbench.measure.contrasts import Contrast, Difference, compare_cells
from crossbench.measure.intervals import Interval
from crossbench.measure.metric import Metric
from crossbench.measure.run_spread import (
    equal_sweeps,
    run_spread,
    spread_in_blocks,
    spread_interval,
    visible_difference,
)
from crossbench.report.allowance import JUDGED, Spread
from crossbench.report.judged import judged_values
from crossbench.results import RunResult

REPEATS = (3, 6)  # for which the visible difference is given
SWEEP_REPEATS = 3  # of the sweeps that the runs are cut into
LEAST_BLOCKS = SWEEP_REPEATS + 1
_DIFFERENT = frozenset({Difference.HIGHER, Difference.LOWER})

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """The runs of one block: the same cell twice, and the slower one, if there is one.

    A run is None if it did not take place.
    """

    equal: tuple[RunResult | None, RunResult | None]
    slower: RunResult | None = None

    @property
    def runs(self) -> list[RunResult]:
        return [run for run in (*self.equal, self.slower) if run is not None]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many sweeps were judged, how many of them said "different", and how many wrongly.

    Wrongly means with the wrong sign, and for equal cells, any difference.
    """

    sweeps: int
    different: int
    wrong: int


@dataclass(frozen=True, slots=True)
class MetricCheck:
    """The findings about one metric.

    `spread` is that of all runs of the cell and `interval` its 95 % interval; `visible` has the
    least relative difference for each of `REPEATS`. `equal` and `slowed` count verdicts on sweeps
    made from these runs, `slowed` with the values of one cell changed by the known slowdown.
    `slower` is the contrast of the cell that really was slower, None without one.
    """

    metric: Metric
    mean: float
    spread: Spread
    interval: Interval
    visible: tuple[float | None, ...]
    equal: Counted
    slowed: Counted
    slower: Contrast | None


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a check found; `slowdown` is a share, `failures` are reasons."""

    label: str
    blocks: tuple[Block, ...]
    planned: int
    slowdown: float
    margin: float
    metrics: tuple[MetricCheck, ...]

    @property
    def equal_runs(self) -> list[RunResult]:
        return [run for block in self.blocks for run in block.equal if run is not None]

    @property
    def runs(self) -> list[RunResult]:
        return [run for block in self.blocks for run in block.runs]

    @property
    def interrupted(self) -> bool:
        return len(self.blocks) < self.planned


def find(
    label: str,
    blocks: Sequence[Block],
    planned: int,
    slowdown: float,
    margin: float,
    seed: int,
) -> Findings:
    """Return what the blocks show; metrics without enough values are left out."""
    checks = [_check(metric, blocks, slowdown, margin, seed) for metric in JUDGED]
    return Findings(
        label,
        tuple(blocks),
        planned,
        slowdown,
        margin,
        tuple(check for check in checks if check is not None),
    )


def pair(log_values: Float64Array, margin: float) -> Contrast:
    """Return the contrast of the second of two cells with the first; shape (2, blocks)."""
    return compare_cells(log_values, margin=margin).pair(1, 0)


def _check(
    metric: Metric, blocks: Sequence[Block], slowdown: float, margin: float, seed: int
) -> MetricCheck | None:
    every = _matrix(blocks, metric)
    values = every[:2]
    if np.isfinite(values).all(axis=0).sum() < LEAST_BLOCKS:
        return None
    spread, within = run_spread(values), spread_in_blocks(values)
    assert spread is not None
    assert within is not None
    sd = within[0]

    def interval_of(simulated: Float64Array) -> Interval | None:
        found = pair(simulated, margin)
        if found.low is None or found.high is None:
            return None
        return Interval(math.log(found.low), math.log(found.high))

    # In a block with both runs of the cell, the slower one is compared with their mean
    slower = np.array([values.mean(axis=0), every[2]])
    known = np.isfinite(slower).all(axis=0).sum() >= SWEEP_REPEATS
    return MetricCheck(
        metric,
        math.exp(float(np.nanmean(values))),
        Spread(*spread),
        spread_interval(*spread),
        tuple(visible_difference(sd, repeats, interval_of, seed) for repeats in REPEATS),
        _count(values, 0.0, margin),
        _count(values, _slowed(metric, slowdown), margin),
        pair(slower, margin) if known else None,
    )


def _slowed(metric: Metric, slowdown: float) -> float:
    """Return the change of a metric's logarithm by the known slowdown, which memory has not."""
    if metric not in (*RATES, P95_LATENCY):
        return 0.0
    return math.log1p(slowdown) * (-1 if metric in RATES else 1)


def _count(values: Float64Array, change: float, margin: float) -> Counted:
    """Judge every sweep that the runs can be cut into, the second cell changed by `change`."""
    sweeps = different = wrong = 0
    shift = np.array([[0.0], [change]])
    expected = Difference.HIGHER if change > 0 else Difference.LOWER
    for sweep in equal_sweeps(values, SWEEP_REPEATS):
        found = pair(sweep + shift, margin).difference
        sweeps += 1
        different += found in _DIFFERENT
        wrong += found in _DIFFERENT and (change == 0 or found is not expected)
    return Counted(sweeps, different, wrong)


def _matrix(blocks: Sequence[Block], metric: Metric) -> Float64Array:
    """Return the values of the equal cells and the slower one, (3, blocks), NaN where missing."""
    runs = [[*block.equal, block.slower] for block in blocks]
    known = [run for row in runs for run in row if run is not None]
    values = iter(judged_values(known, metric))
    found = [[None if run is None else next(values) for run in row] for row in runs]
    return np.array(found, dtype=np.float64).reshape(-1, 3).T
