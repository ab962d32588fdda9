"""Steps of a measurement: throughput and latency of each part of a ramp."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One level of a ramp; times in seconds since the start of the measurement."""

    label: str
    start_s: float
    end_s: float
