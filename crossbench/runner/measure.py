"""The measurement: warm up, then drive the load between two readings of the server's counters."""

from __future__ import annotations

import asyncio
import time

import grpc

from crossbench.backends.compilations import compilation_count
from crossbench.events import MEASURING
from crossbench.load.closed import keep_in_flight
from crossbench.load.protocol import HasSchedule, HasSteps, Load
from crossbench.load.requests import Repeated, Requests, RequestSource
from crossbench.load.sender import Observer, Sender
from crossbench.load.stop import Watch
from crossbench.load.warmup import WarmUp
from crossbench.measure.correlation import correlation_metrics
from crossbench.measure.harness import HarnessMeter
from crossbench.measure.intervals import load_special_functions
from crossbench.measure.probes import CpuMeter
from crossbench.measure.statistics import summarise
from crossbench.results import Failure
from crossbench.runner.audit import harness_meter
from crossbench.runner.event_stream import EventStream, ProgressReporter
from crossbench.runner.load import Traffic
from crossbench.runner.load_flags import load_flags
from crossbench.runner.result import CellData, Measured, server_metrics
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.finite import NON_FINITE
from crossbench.settings.plan import CellPlan
from crossbench.types import Task

COUNTERS_TIMEOUT_S = 30.0  # for the counters of a server that may hang


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

    The warm-up is a closed loop, so that a slow load does not prolong it. It repeats its
    `warmup_requests` requests until the server is steady. They are not measured, even if time runs
    out before all are sent, so that all cells are measured with the same requests.

    Raises:
        ConfigError: the requests name a model that the server does not have.
    """
    settings, task = plan.settings, Task(traffic.options.task)
    models = traffic.options.model_order([model.name for model in info.models])
    warmup_errors: dict[str, str] = {}
    errors: dict[str, str] = {}

    def sender(
        requests: RequestSource, watch: Watch, observe: Observer, into: dict[str, str]
    ) -> Sender:
        timeout_s = traffic.options.timeout_s
        return Sender(
            client, requests, timeout_s, watch, interrupted, models, observe, into.setdefault
        )

    sizes = traffic.options.distribution
    requests = Requests(
        data.dataset.lists, sizes.draw(settings.seed) if sizes else settings.batch, task
    )
    reserved = [requests.take() for _ in range(settings.warmup_requests)]
    events.stage("warming up")
    warming_s = time.perf_counter()
    warmup = WarmUp(max(len(reserved), settings.concurrency), settings.warmup_max_seconds)
    if reserved:
        warming = sender(Repeated(reserved), warmup, lambda record: None, warmup_errors)
        await keep_in_flight(warming, settings.concurrency)
    warmup_s = time.perf_counter() - warming_s

    load_special_functions()
    events.stage(MEASURING)
    harness = harness_meter(client, plan, events)
    watch = traffic.watch()
    measured = sender(requests, watch, ProgressReporter(events, watch, task.unit), errors)
    cut_short, reset_midway, metrics = await _drive(
        client, traffic.load, measured, info, task, harness
    )
    if interrupted.is_set():
        cut_short = cut_short or Failure.INTERRUPTED
    metrics["startup/warmup_s"] = warmup_s
    non_finite = {**errors, **warmup_errors}.get(NON_FINITE.name, "")
    return Measured(
        measured.records,
        metrics,
        info,
        errors,
        cut_short,
        reset_midway,
        non_finite,
        {**load_flags(measured, traffic.load), **harness.flags()},
        measured.end,
        warmup.warning() if reserved else "",
        traffic.load.schedule if isinstance(traffic.load, HasSchedule) else None,
        traffic.load.steps if isinstance(traffic.load, HasSteps) else (),
    )


async def _drive(
    client: InferenceClient,
    load: Load,
    sender: Sender,
    info: pb.ServerInfo,
    task: Task,
    harness: HarnessMeter,
) -> tuple[str, bool, dict[str, float]]:
    """Drive the load between two readings of the server's counters.

    Returns why the measurement ended early ("" if it did not), whether somebody else reset the
    counters meanwhile, and the metrics.
    """
    await client.reset_metrics()
    before = await client.metrics()
    compiled_before = compilation_count()
    async with harness.watch(sender.records):
        cpu, started_s = CpuMeter(), time.perf_counter()
        sender.start()
        await load.drive(sender)
        wall_s, cores_used = time.perf_counter() - started_s, cpu.cores_used()
        after, cut_short = await _counters(client)
    compiled = compilation_count()

    metrics = {**summarise(sender.records, task), **correlation_metrics(sender.records)}
    if after is not None:
        metrics |= server_metrics(info, before, after, wall_s, task)
    reset_midway = after is not None and after.since_reset_s < wall_s
    # With target=inprocess, the server is included
    metrics |= {**harness.metrics(), "harness/cores_used": cores_used}
    if compiled is not None:  # worker processes are not counted
        metrics["compile/recompilations"] = float(compiled - (compiled_before or 0))
    return cut_short, reset_midway, metrics


async def _counters(client: InferenceClient) -> tuple[pb.Metrics | None, str]:
    """Return the server's counters, or None and why it did not send them."""
    try:
        return await client.metrics(COUNTERS_TIMEOUT_S), ""
    except grpc.aio.AioRpcError as error:
        return None, f"the connection to the server was lost ({error.code().name})"
