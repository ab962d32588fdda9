"""When the harness or other work on the machine limited a measurement: the flags and their rules.

Thresholds were chosen on two cores, where `python -m benchmarks.flags` measures how often the flags
are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossbench.measure.cpu_load import CpuUse
from crossbench.measure.event_loop import LoopUse
from crossbench.results import Flag
from crossbench.wording import number, percent

MIN_PERIOD_S = 1.0  # shorter measurements are not judged: the system counts in 10 ms


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A measurement beyond one of these gets a flag."""

    # Others took this share of the run's cores, or this many cores of a large machine. A quiet
    # machine stays below 2 %. Two busy loops take half of two cores, or 2 of 64.
    taken_share: float
    taken_cores: float
    # A hypervisor gave this share of the CPU time that the machine wanted to other machines. On a
    # shared host, single cells have 7 % without any other sign of a disturbance.
    steal: float
    # The thread of the client's event loop was busy for this share of the time. From there on, what
    # is due waits for longer than two pieces of work take (M/D/1). noop has 40 %, a model 2 %.
    loop_share: float
    # What was due ran later than this, and later than the median request took. Turns of other
    # threads of a busy interpreter (5 ms each) delay a healthy loop by up to 15 ms.
    loop_lag_ms: float

    def taken(self, cores: int) -> float:
        """The number of cores above which the run is disturbed on this many cores."""
        return min(self.taken_share * cores, self.taken_cores)


THRESHOLDS = Thresholds(
    taken_share=0.05, taken_cores=1.0, steal=0.1, loop_share=0.8, loop_lag_ms=20.0
)


def disturbance(
    spans: Sequence[CpuUse], whole: CpuUse, thresholds: Thresholds = THRESHOLDS
) -> str | None:
    """Return by what the measurement was disturbed, or None. `whole` is the use over all spans.

    Other processes on cores that would be idle otherwise do no harm, and one that works in bursts
    may find idle cores on average only. So what others took is judged in each second, and the
    measurement by the mean of that. None for less than a second.
    """
    if whole.period_s < MIN_PERIOD_S:
        return None
    total_s = sum(span.period_s for span in spans)
    limit = thresholds.taken(whole.cores)
    reasons = []
    if sum(span.taken * span.period_s for span in spans) > limit * total_s:
        busy = [span for span in spans if span.taken > limit]
        busy_s = sum(span.period_s for span in busy)
        others = sum(span.others * span.period_s for span in busy) / busy_s
        reasons.append(
            f"other processes used {number(others, 2)} of {whole.cores} CPU cores"
            + (f" for {busy_s:.0f} of {total_s:.0f} seconds" if busy_s < 0.95 * total_s else "")
        )
    # On an idle machine, a large share of the little that it wanted may be stolen
    if whole.steal is not None and whole.steal > thresholds.steal and whole.stolen > limit:
        reasons.append(f"the hypervisor gave {percent(whole.steal)} of the CPU time to others")
    return ", and ".join(reasons) or None


def client_limit(
    loop: LoopUse, p50_ms: float | None, disturbed: bool, thresholds: Thresholds = THRESHOLDS
) -> str | None:
    """Return how the client limited the measurement, or None. `p50_ms` is the median latency.

    A loop that waits for a core because of other processes also runs late, so lateness counts only
    if the measurement was not disturbed.
    """
    if loop.cpu_share > thresholds.loop_share:
        return f"the client's event loop was busy for {percent(loop.cpu_share)} of the time"
    limit_ms = max(thresholds.loop_lag_ms, p50_ms or 0.0)
    if p50_ms is not None and not disturbed and loop.lag_p99_ms > limit_ms:
        return (
            f"the client's event loop was blocked for up to {number(loop.lag_p99_ms, 2)} ms (p99), "
            f"and the median request took {number(p50_ms, 2)} ms"
        )
    return None


def flags_of(
    spans: Sequence[CpuUse], cpu: CpuUse | None, loop: LoopUse, p50_ms: float | None
) -> dict[str, str]:
    """Return the flags of a measurement with their reasons, as sentences.

    `cpu` is None if the system's counters cannot be read.
    """
    disturbed = disturbance(spans, cpu) if cpu else None
    limited = client_limit(loop, p50_ms, disturbed is not None)
    found = {Flag.CLIENT_BOUND: limited, Flag.DISTURBED: disturbed}
    return {flag: f"{reason}." for flag, reason in found.items() if reason is not None}
