"""The measurement: warm up, then drive the load between two readings of the server's counters."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext

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
from crossbench.runner.audit import find_listening, harness_meter
from crossbench.runner.event_stream import EventStream, ProgressReporter
from crossbench.runner.load import Traffic
from crossbench.runner.load_flags import load_flags
from crossbench.runner.result import CellData, Measured, server_metrics
from crossbench.runner.scraper import find_scraper
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.endpoint import Endpoint
from crossbench.serving.finite import NON_FINITE
from crossbench.settings.plan import CellPlan
from crossbench.types import Task
from crossbench.wording import counted

COUNTERS_TIMEOUT_S = 30.0  # for the counters of a server that may hang


async def measure(
    client: Endpoint,
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
        data.dataset.lists,
        sizes.draw(settings.seed) if sizes else settings.batch,
        task,
        one_query=not client.spans_queries,
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
    listening = find_listening(plan)
    harness = harness_meter(client, plan, events, listening)
    watch = traffic.watch()
    measured = sender(requests, watch, ProgressReporter(events, watch, task.unit), errors)
    scraper = find_scraper(plan)
    async with scraper.watch() if scraper else nullcontext():
        cut_short, counters_warning, metrics = await _drive(
            client, traffic.load, measured, info, task, harness
        )
    if interrupted.is_set():
        cut_short = cut_short or Failure.INTERRUPTED
    if listening is not None:
        metrics |= listening.metrics()
    metrics["startup/warmup_s"] = warmup_s
    non_finite = {**errors, **warmup_errors}.get(NON_FINITE.name, "")
    return Measured(
        measured.records,
        metrics,
        info,
        errors,
        cut_short,
        counters_warning,
        non_finite,
        {**load_flags(measured, traffic.load), **harness.flags()},
        measured.end,
        warmup.warning() if reserved else "",
        traffic.load.schedule if isinstance(traffic.load, HasSchedule) else None,
        traffic.load.steps if isinstance(traffic.load, HasSteps) else (),
        scraped=scraper.values() if scraper else (),
        scrape_warning=scraper.warning() if scraper else "",
    )


async def _drive(
    client: Endpoint,
    load: Load,
    sender: Sender,
    info: pb.ServerInfo,
    task: Task,
    harness: HarnessMeter,
) -> tuple[str, str, dict[str, float]]:
    """Drive the load between two readings of the server's counters.

    Returns why the measurement ended early ("" if it did not), why the server's counters do not
    cover all of it ("" if they do), and the metrics.
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
    if before is not None and after is not None:
        metrics |= server_metrics(info, before, after, wall_s, task)
    # With target=inprocess, the server is included
    metrics |= {**harness.metrics(), "harness/cores_used": cores_used}
    if compiled is not None:  # worker processes are not counted
        metrics["compile/recompilations"] = float(compiled - (compiled_before or 0))
    return cut_short, "" if after is None else counters_warning(after, wall_s), metrics


def counters_warning(after: pb.Metrics, wall_s: float) -> str:
    """Return in words why the counters do not cover the last `wall_s`; empty if they do."""
    if after.replicas_missing:
        return (
            f"{counted(after.replicas_missing, 'replica')} of "
            f"{after.replicas + after.replicas_missing} did not tell its counters at the end: "
            "batching, CPU time and memory are those of the others"
        )
    if after.since_reset_s >= wall_s:
        return ""
    if after.replicas:
        return (
            "a replica was started again during the measurement, or the counters were reset: "
            "batching, CPU time and peak memory do not cover all of it"
        )
    return (
        "the server's counters were reset during the measurement: batching and peak memory cover "
        "only the time since then"
    )


async def _counters(client: Endpoint) -> tuple[pb.Metrics | None, str]:
    """Return the server's counters, or None and why it did not send them.

    The reason is empty if the server has no counters.
    """
    try:
        return await client.metrics(COUNTERS_TIMEOUT_S), ""
    except grpc.aio.AioRpcError as error:
        return None, f"the connection to the server was lost ({error.code().name})"
