"""The harness's audit of a cell: which processes are the run's, and what is told while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import grpc

from crossbench.events import FlagsChanged
from crossbench.measure.harness import HarnessMeter
from crossbench.runner.event_stream import EventStream
from crossbench.serving.endpoint import Endpoint
from crossbench.settings.plan import CellPlan

TIMEOUT_S = 1.0  # for the counters of a server that may hang


def harness_meter(client: Endpoint, plan: CellPlan, events: EventStream) -> HarnessMeter:
    """Return the meter of a cell, which sends an event when the flags of the moment change."""
    runs_already = plan.server is None
    server_cpu = _ServerCpu(client) if runs_already and client.is_local else None
    return HarnessMeter(events.parent_pid, _FlagEvents(events), server_cpu)


class _ServerCpu:
    """The CPU time of a server on this machine that is not one of the run's processes."""

    def __init__(self, client: Endpoint) -> None:
        self._client = client
        self._cpu_s = 0.0

    async def __call__(self) -> float:
        """Return CPU seconds; the last known ones if the server does not answer."""
        with contextlib.suppress(grpc.aio.AioRpcError):  # the sender reports it, and the cell ends
            if (counters := await self._client.metrics(TIMEOUT_S)) is not None:
                self._cpu_s = counters.cpu_s
        return self._cpu_s


class _FlagEvents:
    """Sends an event if other flags apply than at the last call, whatever the figures."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._sent: frozenset[str] = frozenset()

    def __call__(self, flags: Mapping[str, str]) -> None:
        if flags.keys() != self._sent:
            self._sent = frozenset(flags)
            self._events.send(FlagsChanged(flags))
