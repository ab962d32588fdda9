"""Build the load of a plan and the options of its requests."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from crossbench.errors import ConfigError
from crossbench.load.protocol import HasSchedule, HasSteps, Load, LoadContext
from crossbench.load.requests import RequestOptions
from crossbench.load.stop import Limits, LimitWatch, StopRule, Watch
from crossbench.settings.component import Component
from crossbench.settings.plan import CellPlan

_TARGET = f"{RequestOptions.__module__}.{RequestOptions.__qualname__}"
_OPTIONS = frozenset(item.name for item in fields(RequestOptions))


@dataclass(frozen=True, slots=True)
class Traffic:
    """The load of a cell, which decides when requests are sent, the options of all requests, and
    the rule that ends the measurement.
    """

    load: Load
    options: RequestOptions
    stop: StopRule

    def watch(self) -> Watch:
        """Return the watch that ends one measurement."""
        if isinstance(self.load, HasSteps):  # all steps are wanted, however precise the first is
            return LimitWatch(self.stop.limits)
        return self.stop.watch(scheduled=isinstance(self.load, HasSchedule))


def build_traffic(plan: CellPlan) -> Traffic:
    """Build the load of a plan, the options of its requests and the stop rule; send nothing yet.

    Raises:
        ConfigError: a value of the load or the stop rule cannot be used.
    """
    values, settings = plan.load.values, plan.settings
    if missing := sorted(_OPTIONS - values.keys()):
        raise ConfigError(
            f"the config of the load has no {', '.join(missing)}: add conf/request.yaml to it"
        )
    labels = values.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(
            f"load.labels must be a list of config keys, got {labels!r}: give for example "
            "labels: [load, load.rate] in the load's YAML"
        )
    common = {"_target_": _TARGET, **{key: values[key] for key in _OPTIONS}}
    options: RequestOptions = Component.of("load", common).build()
    own = {key: value for key, value in values.items() if key not in _OPTIONS}
    stop = build_stop(plan)
    context = LoadContext(settings.concurrency, settings.seed, stop.limits, stop.longest_s)
    load: Load = replace(plan.load, values=own).build(context=context)
    return Traffic(load, options, stop)


def build_stop(plan: CellPlan) -> StopRule:
    """Build the rule that ends the measurement.

    Raises:
        ConfigError: a value of the rule cannot be used.
    """
    limits = Limits(plan.settings.requests, plan.settings.max_seconds)
    stop: StopRule = plan.stop.build(limits=limits)
    return stop
