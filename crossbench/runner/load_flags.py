"""Whether an open loop asked for more than the server could do, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.load.protocol import HasSchedule, HasSteps, Load
from crossbench.load.saturation import rejection_reason
from crossbench.load.schedule import Schedule
from crossbench.load.sender import Sender
from crossbench.load.stop import End
from crossbench.measure.statistics import steady_rate
from crossbench.results import Flag
from crossbench.types import RequestRecord
from crossbench.wording import counted, number


def load_flags(sender: Sender, load: Load) -> dict[str, str]:
    """Return the flags of the load that this sender was given, each with its reason."""
    schedule = load.schedule if isinstance(load, HasSchedule) else None
    if schedule is None:
        return {}
    reason = ""
    if sender.over_saturated:
        reason = _growth_reason(sender, schedule, _last_step_s(load, sender.records))
    elif not isinstance(load, HasSteps):
        reason = rejection_reason(sender.records)
    return {Flag.OVER_SATURATED: reason} if reason else {}


def _growth_reason(sender: Sender, schedule: Schedule, start_s: float) -> str:
    """Say how fast requests were due and answered since `start_s`."""
    last_s = max(record.sent_s for record in sender.records)
    span_s = max(last_s - start_s, 1e-9)
    due = int(((schedule.due_s >= start_s) & (schedule.due_s <= last_s)).sum()) / span_s
    rate = steady_rate([record for record in sender.records if record.due_s >= start_s]) or 0.0
    ended = (
        f"The load ended early, after {counted(len(sender.records), 'request')}."
        if sender.end is End.OVER_SATURATED
        else "The backlog grew until the end."
    )
    return (
        f"requests were due at {number(due)} per second, and the server answered {number(rate)} "
        f"per second. {ended}"
    )


def _last_step_s(load: Load, records: Sequence[RequestRecord]) -> float:
    """Return when the last step of a ramp began from which a request was sent; else 0."""
    if not isinstance(load, HasSteps):
        return 0.0
    last_s = max(record.due_s for record in records)
    return max(step.start_s for step in load.steps if step.start_s <= last_s)
