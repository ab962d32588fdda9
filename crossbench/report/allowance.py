"""The spread from run to run that is allowed for where cells were measured once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, RSS_PEAK_MB
from crossbench.measure.contrasts import Allowance
from crossbench.results import RunResult
from crossbench.wording import percent


def read_allowances(results: Sequence[RunResult], default: float) -> Mapping[str, Allowance]:
    """Return the allowance for throughput, p95 and peak memory, by the metric's name."""
    source = f"{percent(default)}, an assumption (report.spread)"
    found = Allowance(default, math.inf, source)
    return {metric.name: found for metric in (PAIRS_PER_S, P95_LATENCY, RSS_PEAK_MB)}
