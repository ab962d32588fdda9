"""Judge two sweeps: the verdicts on B against A for each cell and metric, and the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

import numpy as np

from crossbench.measure.contrasts import ALPHA, Allowance, Contrast, Difference
from crossbench.measure.metric import Better, Metric
from crossbench.measure.ranking import Verdict
from crossbench.measure.welch import independent_contrast, samples, share_of_alpha
from crossbench.report.allowance import JUDGED
from crossbench.report.judged import is_worse, judged_values
from crossbench.report.pairing import Distinction, Pair, Paired
from crossbench.results import RunResult, Status


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one metric of one cell: B against A.

    `a` and `b` are the geometric means of the runs that count, `runs` their numbers. `regressed`:
    the interval excludes no difference, and the ratio is worse than the threshold.
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

    `lost` says why the cell got worse in another way than in its numbers; empty if it did not.
    """

    label: str
    metrics: tuple[Judged, ...]
    rankings: tuple[str, str]
    lost: str

    @property
    def regressed(self) -> bool:
        return bool(self.lost) or any(item.regressed for item in self.metrics)

    def of(self, metric: Metric) -> Judged | None:
        """Return the verdict on a metric; None if it could not be compared."""
        return next((item for item in self.metrics if item.metric is metric), None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is known about B against A; `margin` and `threshold` are shares."""

    names: tuple[str, str]
    started: tuple[str, str]
    cells: tuple[JudgedCell, ...]
    paired: Paired
    contradictions: tuple[Distinction, ...]
    explanations: tuple[Distinction, ...]
    sources: tuple[str, ...]
    margin: float
    threshold: float

    @property
    def regressed(self) -> bool:
        return any(cell.regressed for cell in self.cells)

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

    The intervals of a metric hold together over all cells.
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
            if any(sample.runs == 1 for sample in sides[side]):
                sources[allowances[side][metric.name].source] = None
        alpha = share_of_alpha(ALPHA, len(places))
        for place, a, b in zip(places, *sides, strict=True):
            contrast = independent_contrast(a, b, margin=margin, alpha=alpha)
            means = [geometric_mean(np.exp(column).tolist()) for column in columns[place]]
            found[place].append(
                Judged(
                    metric, means[0], means[1], (a.runs, b.runs), contrast,
                    is_worse(metric, contrast.difference)
                    and _beyond(metric, contrast.ratio, threshold),
                )
            )  # fmt: skip
    cells = (
        JudgedCell(pair.label, tuple(judged), _rankings(pair), _lost(pair))
        for pair, judged in zip(pairs, found, strict=True)
    )
    return tuple(cells), tuple(sources)


def _beyond(metric: Metric, ratio: float, threshold: float) -> bool:
    """Whether a ratio is worse than the threshold allows."""
    return ratio < 1 - threshold if metric.better is Better.HIGHER else ratio > 1 + threshold


def _values(runs: Sequence[RunResult], metric: Metric) -> np.ndarray:
    found = judged_values(runs, metric)
    return np.array([value for value in found if value is not None], dtype=np.float64)


def _rankings(pair: Pair) -> tuple[str, str]:
    return _ranking(pair.a), _ranking(pair.b)


def _ranking(runs: Sequence[RunResult]) -> str:
    """The verdict of a cell's quality checks, the worst one if its runs differ; empty: no check."""
    found = {str(run.quality["verdict"]) for run in runs if run.quality.get("verdict")}
    found.discard(Verdict.UNCHECKED)
    worst_first = (Verdict.CHANGES, Verdict.UNSURE)
    return next((v.value for v in worst_first if v in found), next(iter(sorted(found)), ""))


def _lost(pair: Pair) -> str:
    """Why B is worse than A, apart from the numbers."""
    finished = [any(run.status is Status.FINISHED for run in side) for side in (pair.a, pair.b)]
    if finished == [True, False]:
        reason = (pair.b[0].error or "no reason was recorded").strip().splitlines()[0]
        return f"it did not finish in B ({pair.b[0].status}: {reason})"
    if _ranking(pair.b) == Verdict.CHANGES != _ranking(pair.a) and _ranking(pair.a):
        return f"its ranking changes in B (in A: {_ranking(pair.a)})"
    return ""
