"""What the replica that is asked tells about all replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import psutil

from crossbench.errors import NotServing
from crossbench.measure.memory import reset_high_water
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.on_ray.merging import (
    ProcessUse,
    ReplicaCounters,
    merged_info,
    merged_metrics,
    processes_of,
)
from crossbench.serving.telemetry import RATE_WINDOW_S
from crossbench.serving.usage import process_peak_mb

ASK_S = 5.0  # for the answers of all replicas
_MB = 1e6


class SharedAccount:
    """Asks all replicas and adds what they tell. A replica that died is left out.

    `handle` is Ray's handle of the deployment, which should have `replicas`. `roster` is the handle
    of the actor `Roster`.
    """

    def __init__(self, handle: Any, roster: Any, replicas: int) -> None:
        self._handle, self._roster, self._replicas = handle, roster, replicas
        self._mark = (time.perf_counter(), 0.0)  # CPU seconds of the proxies at a time
        self._proxy_cores = 0.0

    async def info(self) -> pb.ServerInfo:
        return merged_info([pb.ServerInfo.FromString(told) for told in await self._ask("own_info")])

    async def metrics(self) -> pb.Metrics:
        parts: list[ReplicaCounters] = await self._ask("own_counters", await self._proxies())
        merged = merged_metrics(parts, self._replicas)
        merged.cpu_cores += self._cores(sum(use.cpu_s for use in processes_of(parts).values()))
        return merged

    async def reset(self) -> None:
        await self._ask("own_reset", await self._proxies())

    async def _ask(self, method: str, *arguments: object) -> list[Any]:
        """Return the answers of all replicas that live.

        Raises:
            NotServing: there is none, or one does not answer in time.
        """
        from ray.serve.exceptions import RayServeException

        asking = self._handle.broadcast(method, *arguments)
        try:
            answers = await asking.results_async(timeout_s=ASK_S, return_exceptions=True)
        except (TimeoutError, RayServeException) as error:
            raise NotServing(
                f"the replicas did not all tell their counters within {ASK_S:g} s ({error}): "
                "ask again"
            ) from error
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        if not found:
            raise NotServing("no replica tells its counters: ask again")
        return found

    async def _proxies(self) -> list[tuple[str, int]]:
        from ray.exceptions import RayError

        try:
            proxies: list[tuple[str, int]] = await self._roster.proxies.remote()
        except RayError:  # the process that deployed the server has been killed
            return []
        return proxies

    def _cores(self, cpu_s: float) -> float:
        """Return the cores that the proxies use, updated at most once per second."""
        now_s = time.perf_counter()
        mark_s, mark_cpu_s = self._mark
        if now_s - mark_s >= RATE_WINDOW_S:
            if mark_cpu_s:
                self._proxy_cores = max(0.0, cpu_s - mark_cpu_s) / (now_s - mark_s)
            self._mark = (now_s, cpu_s)
        return self._proxy_cores


def use_of_processes(
    machine: str, proxies: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], ProcessUse]:
    """Return what the proxies on `machine`, this one, use, without those that ended."""
    found = {}
    for key in proxies:
        try:
            process = psutil.Process(key[1]) if key[0] == machine else None
            if process is not None:
                spent = process.cpu_times()
                rss_mb = process.memory_info().rss / _MB
                found[key] = ProcessUse(
                    float(spent.user + spent.system), rss_mb, process_peak_mb(key[1])
                )
        except psutil.Error:
            continue
    return found


async def reset_peaks(machine: str, proxies: Sequence[tuple[str, int]]) -> None:
    """Start a new measurement of the peak memory of the proxies on `machine`, this one."""
    for name, pid in proxies:
        if name == machine:
            await asyncio.to_thread(reset_high_water, pid)
