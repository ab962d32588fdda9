"""Judge two sweeps: the verdicts on B against A for each cell and metric, and the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import geometric_mean

import numpy as np

from crossbench.measure.catalogue import P95_LATENCY, RATES
from crossbench.measure.contrasts import ALPHA, Allowance, Contrast, Difference
from crossbench.measure.metric import Better, Metric
from crossbench.measure.welch import independent_contrast, samples, share_of_alpha
from crossbench.report.allowance import JUDGED
from crossbench.report.judged import judged_values
from crossbench.report.losses import losses, ranking_verdict
from crossbench.report.pairing import Distinction, Pair, Paired
from crossbench.results import Flag, RunResult

_TIMES = (*RATES, P95_LATENCY)  # what other work on the machine changes


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one metric of one cell: B against A.

    `a` and `b` are the geometric means of the runs that count, `runs` their numbers. `regressed`:
    the whole interval is worse than no difference, and the ratio is worse than the threshold.
    """

    metric: Metric
    a: float
    b: float
    runs: tuple[int, int]
    contrast: Contrast
    regressed: bool


@dataclass(frozen=True, slots=True)
class JudgedCell:
    """The verdicts on one cell. `rankings` are the quality checks' verdicts in A and B.

    `losses` say how the cell got worse in another way than in its numbers. `unknown` has the
    metrics that only A has in a form that can be compared.
    """

    label: str
    metrics: tuple[Judged, ...]
    rankings: tuple[str, str]
    losses: tuple[str, ...]
    unknown: tuple[Metric, ...]

    @property
    def regressed(self) -> bool:
        return bool(self.losses) or any(item.regressed for item in self.metrics)

    def of(self, metric: Metric) -> Judged | None:
        """Return the verdict on a metric; None if it could not be compared."""
        return next((item for item in self.metrics if item.metric is metric), None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is known about B against A; `margin` and `threshold` are shares.

    `missing` has the names of the cells that only A has, if B should have them. `incomplete` says
    which runs of the sweeps have no result.
    """

    names: tuple[str, str]
    started: tuple[str, str]
    cells: tuple[JudgedCell, ...]
    paired: Paired
    contradictions: tuple[Distinction, ...]
    explanations: tuple[Distinction, ...]
    sources: tuple[str, ...]
    missing: tuple[str, ...]
    incomplete: tuple[str, ...]
    margin: float
    threshold: float

    @property
    def regressed(self) -> bool:
        return bool(self.missing) or any(cell.regressed for cell in self.cells)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that could be compared in some cell."""
        return [metric for metric in JUDGED if any(cell.of(metric) for cell in self.cells)]

    def count(self, difference: Difference) -> int:
        return sum(
            item.contrast.difference is difference for cell in self.cells for item in cell.metrics
        )


def judge_pairs(
    pairs: Sequence[Pair],
    allowances: tuple[Mapping[str, Allowance], Mapping[str, Allowance]],
    margin: float,
    threshold: float,
) -> tuple[tuple[JudgedCell, ...], tuple[str, ...]]:
    """Return the verdicts on each cell, and the sources of the allowances that were used.

    The intervals of a metric hold together over all cells. An assumed spread does not hold for
    times that other work disturbed, so these cannot be told apart.
    """
    found: list[list[Judged]] = [[] for _ in pairs]
    sources: dict[str, None] = {}
    for metric in JUDGED:
        columns = [(_values(pair.a, metric), _values(pair.b, metric)) for pair in pairs]
        places = [place for place, (a, b) in enumerate(columns) if len(a) and len(b)]
        if not places:
            continue
        sides = [
            samples([columns[place][side] for place in places], allowances[side][metric.name])
            for side in (0, 1)
        ]
        for side in (0, 1):
            if any(sample.assumed for sample in sides[side]):
                sources[allowances[side][metric.name].source] = None
        alpha = share_of_alpha(ALPHA, len(places))
        for place, a, b in zip(places, *sides, strict=True):
            contrast = independent_contrast(
                a.with_spread_of(b), b.with_spread_of(a), margin=margin, alpha=alpha
            )
            if (a.assumed or b.assumed) and metric in _TIMES and _was_disturbed(pairs[place]):
                contrast = replace(contrast, low=None, high=None, difference=Difference.UNKNOWN)
            means = [geometric_mean(np.exp(column).tolist()) for column in columns[place]]
            found[place].append(
                Judged(
                    metric, means[0], means[1], (a.runs, b.runs), contrast,
                    _is_worse(metric, contrast) and _beyond(metric, contrast.ratio, threshold),
                )
            )  # fmt: skip
    cells = (
        JudgedCell(
            pair.label,
            tuple(judged),
            (ranking_verdict(pair.a), ranking_verdict(pair.b)),
            tuple(losses(pair, threshold)),
            tuple(
                metric
                for metric in JUDGED
                if len(_values(pair.a, metric)) and not len(_values(pair.b, metric))
            ),
        )
        for pair, judged in zip(pairs, found, strict=True)
    )
    return tuple(cells), tuple(sources)


def _was_disturbed(pair: Pair) -> bool:
    return any(Flag.DISTURBED in run.flags for run in (*pair.a, *pair.b))


def _is_worse(metric: Metric, contrast: Contrast) -> bool:
    """Whether the whole interval is on the worse side of no difference."""
    if contrast.low is None or contrast.high is None:
        return False
    return contrast.high < 1 if metric.better is Better.HIGHER else contrast.low > 1


def _beyond(metric: Metric, ratio: float, threshold: float) -> bool:
    """Whether a ratio is worse than the threshold allows."""
    return ratio < 1 - threshold if metric.better is Better.HIGHER else ratio > 1 + threshold


def _values(runs: Sequence[RunResult], metric: Metric) -> np.ndarray:
    found = judged_values(runs, metric)
    return np.array([value for value in found if value is not None], dtype=np.float64)
