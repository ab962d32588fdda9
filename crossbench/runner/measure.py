"""The measurement: warm up, then drive the load between two readings of the server's counters."""

from __future__ import annotations

import asyncio
import time

import grpc

from crossbench.backends.compilations import compilations
from crossbench.load.closed import keep_in_flight
from crossbench.load.requests import Requests
from crossbench.load.sender import Observer, Sender, Stop
from crossbench.measure.correlation import correlation_metrics
from crossbench.measure.probes import CpuMeter
from crossbench.measure.statistics import summarise
from crossbench.runner.event_stream import EventStream, ProgressReporter
from crossbench.runner.load import Traffic
from crossbench.runner.result import CellData, Measured, server_metrics
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.finite import NON_FINITE
from crossbench.settings.plan import CellPlan
from crossbench.types import Task


async def measure(
    client: InferenceClient,
    traffic: Traffic,
    info: pb.ServerInfo,
    plan: CellPlan,
    data: CellData,
    interrupted: asyncio.Event,
    events: EventStream,
) -> Measured:
    """Warm up, then drive the load between two readings of the server's counters.

    The warm-up is a closed loop, so that a slow load does not prolong it. Its requests are reserved
    even if time runs out before all are sent, so that all cells are measured with the same ones.

    Raises:
        ConfigError: the requests name a model that the server does not have.
    """
    settings, options = plan.settings, traffic.options
    task = Task(options.task)
    turns = options.turns([model.name for model in info.models])
    warmup_reasons: dict[str, str] = {}
    reasons: dict[str, str] = {}

    def sender(requests: Requests, stop: Stop, observe: Observer, failed: dict[str, str]) -> Sender:
        return Sender(
            client,
            requests,
            options.timeout_s,
            stop,
            interrupted,
            turns,
            observe,
            failed.setdefault,
        )

    first, requests = (Requests(data.dataset.lists, settings.batch, task) for _ in range(2))
    for _ in range(settings.warmup_requests):
        requests.take()
    events.stage("warming up")
    warming_s = time.perf_counter()
    if settings.warmup_requests:
        stop = Stop(settings.warmup_requests, settings.warmup_max_seconds)
        warmup = sender(first, stop, lambda record: None, warmup_reasons)
        await keep_in_flight(warmup, settings.concurrency)
    warmup_s = time.perf_counter() - warming_s

    events.stage("measuring")
    await client.reset_metrics()
    before = await client.metrics()
    compiled = compilations()
    cpu, started_s = CpuMeter(), time.perf_counter()
    stop = Stop(settings.requests, settings.max_seconds)
    measured = sender(requests, stop, ProgressReporter(events, stop), reasons)
    await traffic.load.drive(measured)
    records = measured.records
    wall_s, cores_used = time.perf_counter() - started_s, cpu.cores_used()
    recompiled = (compilations() or 0) - (compiled or 0)
    cut_short, reset_midway = "interrupted" if interrupted.is_set() else "", False

    metrics = {**summarise(records, task), **correlation_metrics(records)}
    try:
        after = await client.metrics()
    except grpc.aio.AioRpcError as error:
        cut_short = f"the connection to the server was lost ({error.code().name})"
    else:
        metrics |= server_metrics(info, before, after, wall_s, task)
        reset_midway = after.since_reset_s < wall_s
    metrics |= {
        "startup/warmup_s": warmup_s,
        "harness/cores_used": cores_used,  # with target=inprocess, the server is included
    }
    if compiled is not None or recompiled:  # worker processes are not counted
        metrics["compile/recompilations"] = float(recompiled)
    non_finite = {**reasons, **warmup_reasons}.get(NON_FINITE.name, "")
    return Measured(records, metrics, info, reasons, cut_short, reset_midway, non_finite)
