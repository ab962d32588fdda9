"""The measurement: warm up, then drive the load between two readings of the server's counters."""

from __future__ import annotations

import asyncio
import time

import grpc

from crossbench.backends.compilations import compilation_count
from crossbench.load.closed import keep_in_flight
from crossbench.load.protocol import HasSchedule, HasSteps, Load
from crossbench.load.requests import Repeated, Requests, RequestSource
from crossbench.load.saturation import rejection_reason
from crossbench.load.sender import Observer, Sender
from crossbench.load.stop import End, Watch
from crossbench.load.warmup import WarmUp
from crossbench.measure.correlation import correlation_metrics
from crossbench.measure.harness import HarnessMeter
from crossbench.measure.intervals import load_special_functions
from crossbench.measure.probes import CpuMeter
from crossbench.measure.statistics import steady_rate, summarise
from crossbench.results import Flag
from crossbench.runner.audit import harness_meter
from crossbench.runner.event_stream import EventStream, ProgressReporter
from crossbench.runner.load import Traffic
from crossbench.runner.result import CellData, Measured, server_metrics
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.finite import NON_FINITE
from crossbench.settings.plan import CellPlan
from crossbench.types import Task
from crossbench.wording import counted


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
    events.stage("measuring")
    harness = harness_meter(client, plan, events)
    scheduled = isinstance(traffic.load, HasSchedule | HasSteps)
    watch = traffic.stop.watch(scheduled=scheduled)
    measured = sender(requests, watch, ProgressReporter(events, watch), errors)
    cut_short, reset_midway, metrics = await _drive(
        client, traffic.load, measured, info, task, harness
    )
    if interrupted.is_set():
        cut_short = cut_short or "interrupted"
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
        {**flags_of(measured, traffic.load), **harness.flags()},
        measured.end,
        warmup.warning() if reserved else "",
        traffic.load.schedule if isinstance(traffic.load, HasSchedule) else None,
        traffic.load.steps if isinstance(traffic.load, HasSteps) else (),
    )


def flags_of(sender: Sender, load: Load) -> dict[str, str]:
    """Return the flags of the load that this sender was given, each with its reason."""
    records = sender.records
    if sender.end is End.OVER_SATURATED:
        last_s = max(record.sent_s for record in records)
        due = sum(record.due_s <= last_s for record in records) / max(last_s, 1e-9)
        rate = steady_rate(records) or 0.0
        reason = (
            f"requests were due at {due:.3g} per second, and the server answered {rate:.3g} per "
            f"second. The load ended early, after {counted(len(records), 'request')}."
        )
    elif isinstance(load, HasSchedule) and not isinstance(load, HasSteps):
        reason = rejection_reason(records)
    else:
        reason = ""
    return {Flag.OVER_SATURATED: reason} if reason else {}


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
        await load.drive(sender)
        wall_s, cores_used = time.perf_counter() - started_s, cpu.cores_used()
    compiled = compilation_count()

    cut_short, reset_midway = "", False
    metrics = {**summarise(sender.records, task), **correlation_metrics(sender.records)}
    try:
        after = await client.metrics()
    except grpc.aio.AioRpcError as error:
        cut_short = f"the connection to the server was lost ({error.code().name})"
    else:
        metrics |= server_metrics(info, before, after, wall_s, task)
        reset_midway = after.since_reset_s < wall_s
    # With target=inprocess, the server is included
    metrics |= {**harness.metrics(), "harness/cores_used": cores_used}
    if compiled is not None:  # worker processes are not counted
        metrics["compile/recompilations"] = float(compiled - (compiled_before or 0))
    return cut_short, reset_midway, metrics
