"""The harness's audit of a cell: which processes are the run's, and what is told while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial

import grpc

from crossbench.events import FlagsChanged
from crossbench.measure.harness import CpuSeconds, HarnessMeter
from crossbench.measure.listening_server import ListeningServer
from crossbench.runner.event_stream import EventStream
from crossbench.runner.http_target import HttpServer
from crossbench.runner.ray_target import RayServe
from crossbench.serving.endpoint import Endpoint
from crossbench.settings.plan import CellPlan

TIMEOUT_S = 1.0  # for the counters of a server that may hang


def harness_meter(
    client: Endpoint, plan: CellPlan, events: EventStream, listening: ListeningServer | None = None
) -> HarnessMeter:
    """Return the meter of a cell, which sends an event when the flags of the moment change.

    `listening` is the server if it is on this machine and not crossbench's own.
    """
    server_cpu: CpuSeconds | None = None
    if listening is not None:
        server_cpu = partial(asyncio.to_thread, listening.read)
    elif client.is_local and _runs_elsewhere(plan):
        server_cpu = _ServerCpu(client)
    return HarnessMeter(events.parent_pid, _FlagEvents(events), server_cpu)


def find_listening(plan: CellPlan) -> ListeningServer | None:
    """Return the processes of a server of other people, if they are on this machine."""
    target = plan.target.build()
    port = target.local_port if isinstance(target, HttpServer) else None
    return None if port is None else ListeningServer.on(port)


def _runs_elsewhere(plan: CellPlan) -> bool:
    """Return whether the processes of crossbench's server are not those of the run."""
    target = plan.target.build()
    return plan.server is None or (isinstance(target, RayServe) and target.address is not None)


class _ServerCpu:
    """The CPU time of a server on this machine that is not one of the run's processes."""

    def __init__(self, client: Endpoint) -> None:
        self._client = client
        self._cpu_s = 0.0

    async def __call__(self) -> float:
        """Return CPU seconds; the last known ones if the server does not answer."""
        with contextlib.suppress(grpc.aio.AioRpcError):  # the sender reports it, and the cell ends
            if (counters := await self._client.metrics(TIMEOUT_S)) is not None:
                # It falls if a replica dies behind Ray Serve
                self._cpu_s = max(self._cpu_s, counters.cpu_s)
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
