"""What a cell's throughput means for a day and for a bill."""

from __future__ import annotations

from collections.abc import Mapping

from crossbench.measure import catalogue

_MILLION = 1e6
_S_PER_HOUR = 3600
_S_PER_DAY = 24 * _S_PER_HOUR


def throughput_costs(
    metrics: Mapping[str, float], unit: str, price_per_hour: float | None
) -> dict[str, float]:
    """Return the metrics that follow from the throughput in `unit` (`Task.unit`) per second.

    `price_per_hour` is the price of the machine in any currency; None: there is no cost. Empty if
    there is no throughput.
    """
    per_s = metrics.get(catalogue.throughput(unit).name)
    if not per_s:
        return {}
    found = {catalogue.per_day(unit).name: per_s * _S_PER_DAY / _MILLION}
    if price_per_hour is not None:
        hours_per_million = _MILLION / per_s / _S_PER_HOUR
        found[catalogue.cost(unit).name] = hours_per_million * price_per_hour
    return found
