"""crossbench's client and its server, with `concurrency` requests of `batch` pairs.

The arguments are crossbench overrides. The server is in this process, or in another one with
target=process.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from benchmarks.contestants.cell import open_cell
from benchmarks.contestants.protocol import answer_requests
from crossbench.load.requests import Requests
from crossbench.load.sender import Sender
from crossbench.load.stop import Limits, LimitWatch
from crossbench.measure import catalogue
from crossbench.measure.statistics import summarise
from crossbench.runner.compose import build_server
from crossbench.runner.load import build_traffic
from crossbench.runner.targets import Target
from crossbench.serving.client import InferenceClient
from crossbench.types import Task

METRICS = {
    "pairs_per_s": catalogue.PAIRS_PER_S.name,
    "tokens_per_s": catalogue.TOKENS_PER_S.name,
    "p50_ms": catalogue.latency(50).name,
    **{f"{name}_ms": catalogue.stage(name, "p50").name for name in ("tokenize", "queue", "infer")},
}


def main(overrides: list[str]) -> None:
    cell = open_cell(overrides)
    traffic = build_traffic(cell.plan)
    load, options = traffic.load, traffic.options
    target: Target = cell.plan.target.build()
    loop = asyncio.new_event_loop()
    address = loop.run_until_complete(target.open(partial(build_server, cell.plan, cell.model)))
    client = loop.run_until_complete(_connect(address))
    requests = Requests(cell.lists, cell.plan.settings.batch)

    async def drive(seconds: float) -> Sender:
        watch = LimitWatch(Limits(requests=None, max_seconds=seconds))
        sender = Sender(client, requests, options.timeout_s, watch, asyncio.Event())
        await load.drive(sender)
        return sender

    def measure(seconds: float) -> dict[str, float]:
        sender = loop.run_until_complete(drive(seconds))
        metrics = summarise(sender.records, Task.SCORE)
        answer = {key: metrics[name] for key, name in METRICS.items()}
        server_metrics = loop.run_until_complete(client.metrics())
        if server_metrics.HasField("device_memory_peak_mb"):
            answer["device_peak_mb"] = server_metrics.device_memory_peak_mb
        return answer

    answer_requests(measure)
    loop.run_until_complete(client.close())
    loop.run_until_complete(target.close())


async def _connect(address: str) -> InferenceClient:
    return InferenceClient(address)


if __name__ == "__main__":
    main(sys.argv[1:])
