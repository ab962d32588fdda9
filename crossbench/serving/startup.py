"""From backends that are described to replicas that are loaded and warm, and what that took."""

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


def build_artifacts(backends: Sequence[Backend]) -> None:
    """Let what backends derive from their models be made in processes of their own.

    What converting takes (torch, a second copy of the weights) would stay in the memory of the
    process that is measured, and its time in that of loading: only of the cell that comes first.
    """
    for backend in backends:
        deployment = backend.deployment
        if not isinstance(backend, HasArtifact):
            continue
        require(backend.name, type(backend), deployment.quant, deployment.device)
        if not backend.artifact().is_complete():
            apart = ProcessEngine(backend)
            apart.load_model()
            apart.close()


def load_and_warm(
    replicas: Sequence[Replica],
    telemetry: Telemetry,
    lengths: Callable[[int], Sequence[int]],
    concurrently: bool,
) -> pb.Startup:
    """Load and warm up every replica; where one cannot, close the others and raise what it did.

    `lengths` gives the token lengths to warm up with, of a model that takes so many at most.
    """

    def warm_up(replica: Replica) -> None:
        longest = replica.backend.deployment.model.max_length
        replica.warmup(lengths(longest))

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
    )
