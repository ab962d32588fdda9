"""The measurement itself: warm up, then drive the load between two readings of the server."""

from __future__ import annotations

import asyncio
import time
from itertools import islice

import grpc

from crossbench.backends.compilations import compilations
from crossbench.load.driver import ClosedLoop, Stop
from crossbench.load.requests import fill_requests, fill_texts
from crossbench.measure.correlation import correlation_metrics
from crossbench.measure.probes import CpuMeter
from crossbench.measure.statistics import summarise
from crossbench.runner.event_stream import EventStream, ProgressReporter
from crossbench.runner.result import CellData, Measured, server_metrics
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.finite import NON_FINITE
from crossbench.settings.plan import CellPlan
from crossbench.types import Task


async def measure(
    client: InferenceClient,
    load: ClosedLoop,
    info: pb.ServerInfo,
    plan: CellPlan,
    data: CellData,
    interrupted: asyncio.Event,
    events: EventStream,
) -> Measured:
    """Warm up, then drive the load between two looks at the server's own counters.

    Requests begin behind those set aside for the warm-up, however many of these its time allows:
    every cell of a sweep is measured on the same ones.
    """
    settings, task = plan.settings, plan.task
    fill = fill_texts if task is Task.EMBED else fill_requests
    messages = fill(data.dataset.lists, settings.batch)
    first = list(islice(messages, settings.warmup_requests))
    warmup_reasons: dict[str, str] = {}

    events.stage("warming up")
    warming_s = time.perf_counter()
    if first:
        warmup = Stop(len(first), settings.warmup_max_seconds)
        await load.drive(
            client,
            iter(first),
            warmup,
            lambda _: None,
            interrupted,
            warmup_reasons.setdefault,
        )
    warmup_s = time.perf_counter() - warming_s

    events.stage("measuring")
    await client.reset_metrics()
    before = await client.metrics()
    compiled = compilations()
    cpu, started_s = CpuMeter(), time.perf_counter()
    stop = Stop(settings.requests, settings.max_seconds)
    reasons: dict[str, str] = {}
    records = await load.drive(
        client, messages, stop, ProgressReporter(events, stop), interrupted, reasons.setdefault
    )
    wall_s, cores_used = time.perf_counter() - started_s, cpu.cores_used()
    recompiled = (compilations() or 0) - (compiled or 0)
    cut_short, reset_midway = "interrupted" if interrupted.is_set() else "", False

    metrics = {**summarise(records, task), **correlation_metrics(records)}
    try:
        after = await client.metrics()
    except grpc.aio.AioRpcError as error:
        cut_short = f"the server went away ({error.code().name})"
    else:
        metrics |= server_metrics(info, before, after, wall_s, task)
        reset_midway = after.since_reset_s < wall_s
    metrics |= {
        "startup/warmup_s": warmup_s,
        "harness/cores_used": cores_used,  # of this process, the server's too if it is here
    }
    if compiled is not None or recompiled:  # replicas in processes of their own are not counted
        metrics["compile/recompilations"] = float(recompiled)
    non_finite = {**reasons, **warmup_reasons}.get(NON_FINITE.name, "")
    return Measured(records, metrics, info, reasons, cut_short, reset_midway, non_finite)
