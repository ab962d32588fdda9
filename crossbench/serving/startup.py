"""Loading and warming up the replicas of a server, with the times that this takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from crossbench.backends.availability import require
from crossbench.backends.base import Backend, HasArtifact
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.process_engine import ProcessEngine
from crossbench.serving.replica import Replica
from crossbench.serving.telemetry import Telemetry
from crossbench.serving.usage import Usage, process_peak_mb


def build_artifacts(backends: Sequence[Backend], usage: Usage) -> float:
    """Build the missing artifacts that backends derive from their models, in separate processes.

    Otherwise the first cell of a sweep, which builds them, would measure a larger memory (torch, a
    second copy of the weights) and a longer load time than the others.

    Returns the peak memory of the server's processes and the building one in MB; 0 if nothing was
    built.
    """
    peak_mb = 0.0
    for backend in backends:
        deployment = backend.deployment
        if not isinstance(backend, HasArtifact):
            continue
        require(backend.name, type(backend), deployment.quant, deployment.device)
        if not backend.artifact().is_complete():
            engine = ProcessEngine(backend)
            engine.load_model()
            if engine.pid is not None:
                peak_mb = max(peak_mb, usage.peak_mb() + process_peak_mb(engine.pid))
            engine.close()
    return peak_mb


def load_and_warm(
    replicas: Sequence[Replica],
    telemetry: Telemetry,
    lengths: Callable[[int], Sequence[int]],
    concurrently: bool,
) -> pb.Startup:
    """Load and warm up every replica. If one fails, close all of them and raise its error.

    The peak memory is that since `telemetry` was created or reset.
    `lengths` maps a model's maximum length to the token lengths to warm up with.
    """

    def warm_up(replica: Replica) -> None:
        replica.warmup(lengths(replica.backend.deployment.model.max_length))

    def each(action: Callable[[Replica], None]) -> None:
        if not (concurrently and replicas):
            for replica in replicas:
                action(replica)
            return
        with ThreadPoolExecutor(len(replicas)) as threads:
            for _ in threads.map(action, replicas):
                pass

    before_mb = telemetry.usage.rss_mb()
    loading_s = time.perf_counter()
    try:
        each(Replica.load)
        loaded_s = time.perf_counter()
        after_mb = telemetry.usage.rss_mb()
        each(warm_up)
    except BaseException:
        for replica in replicas:
            replica.close()
        telemetry.usage.close()
        raise
    return pb.Startup(
        load_s=loaded_s - loading_s,
        compile_s=time.perf_counter() - loaded_s,
        rss_before_load_mb=before_mb,
        rss_after_load_mb=after_mb,
        rss_load_peak_mb=telemetry.usage.peak_mb(),
    )
