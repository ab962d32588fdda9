"""Steps of a measurement: throughput and latency of each part of a ramp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossbench.measure.statistics import summarise
from crossbench.types import RequestRecord, Task


@dataclass(frozen=True, slots=True)
class Step:
    """One level of a ramp; times in seconds since the start of the measurement."""

    label: str
    start_s: float
    end_s: float

    def records(self, records: Sequence[RequestRecord]) -> list[RequestRecord]:
        """Return those of these requests that were due in the step."""
        return [record for record in records if self.start_s <= record.due_s < self.end_s]


def step_metrics(
    steps: Sequence[Step], records: Sequence[RequestRecord], task: Task
) -> list[Mapping[str, float]]:
    """Return the metrics of the requests that were due in each step; empty if there were none."""
    found: list[Mapping[str, float]] = []
    for step in steps:
        inside = step.records(records)
        found.append(summarise(inside, task) if inside else {})
    return found
