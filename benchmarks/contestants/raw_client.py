"""A synchronous gRPC client that shares no code with crossbench: it asks the server by reflection.

    python -m benchmarks.contestants.raw_client ADDRESS LISTS BATCH IN_FLIGHT [SERVER_PID]

LISTS is a JSON file with a list of [query, [passage, ...]]. IN_FLIGHT threads each send a Score
request of BATCH passages of one query as soon as their previous one is answered. With SERVER_PID,
the CPU time of the server is measured, too.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from threading import Lock, Thread
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from benchmarks.contestants.lists import batches
from benchmarks.contestants.protocol import answer_requests

SERVICE = "crossbench.v1.Inference"


def score_call(channel: grpc.Channel) -> tuple[Any, Callable[[Any], Any]]:
    """Return the class of Score's requests, and a function that sends one."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Score")
    request, reply = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{SERVICE}/Score",
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    return request, call


def cpu_of(pid: int) -> Any:
    # Imported here, because other environments that use score_call have no psutil
    from benchmarks.contestants.server_cpu import ServerCpu

    return ServerCpu(pid)


def main(
    address: str, lists: Path, batch: int, in_flight: int, server_pid: int | None = None
) -> None:
    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    request_class, score = score_call(channel)
    requests = [
        request_class(query=query, passages=passages) for query, passages in batches(lists, batch)
    ]
    endless, turn = itertools.cycle(requests), Lock()

    def user(end_s: float, taken_ms: list[float]) -> None:
        while (sent_s := time.perf_counter()) < end_s:
            with turn:
                request = next(endless)
            reply = score(request)
            taken_ms.append((time.perf_counter() - sent_s) * 1e3)
            if len(reply.scores) != batch:
                raise ValueError(f"{len(reply.scores)} scores for {batch} passages")

    def measure(seconds: float) -> dict[str, float]:
        taken_ms: list[float] = []
        cpu = None if server_pid is None else cpu_of(server_pid)
        started_s = time.perf_counter()
        users = [
            Thread(target=user, args=(started_s + seconds, taken_ms)) for _ in range(in_flight)
        ]
        for thread in users:
            thread.start()
        for thread in users:
            thread.join()
        requests_per_s = len(taken_ms) / (time.perf_counter() - started_s)
        figures = {
            "requests_per_s": requests_per_s,
            "pairs_per_s": requests_per_s * batch,
            "p50_ms": median(taken_ms),
        }
        if cpu is not None:
            figures["cpu_us"] = cpu.us_per(len(taken_ms))
        return figures

    answer_requests(measure)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *(int(argument) for argument in sys.argv[3:]))
