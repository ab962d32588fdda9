"""Our gRPC server and client in one process, driven with `concurrency` requests of `batch` pairs.

Arguments are crossbench's own overrides.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.contestants.cell import open_cell
from benchmarks.contestants.protocol import obey
from crossbench.compose import build, build_server
from crossbench.load.driver import ClosedLoop, Stop
from crossbench.load.requests import fill_requests
from crossbench.measure.statistics import summarise
from crossbench.serving.client import InferenceClient


def main(overrides: list[str]) -> None:
    cell = open_cell(overrides)
    load: ClosedLoop = build(cell.config["load"], concurrency=cell.settings.concurrency)
    server = build_server(cell.config, cell.settings, cell.model)
    loop = asyncio.new_event_loop()
    address = loop.run_until_complete(server.start())
    client = loop.run_until_complete(_connect(address))
    messages = fill_requests(cell.lists, cell.settings.batch)

    def measure(seconds: float) -> dict[str, float]:
        stop = Stop(requests=sys.maxsize, max_seconds=seconds)
        drive = load.drive(client, messages, stop, lambda _: None, asyncio.Event())
        metrics = summarise(loop.run_until_complete(drive))
        return {
            "pairs_per_s": metrics["throughput/pairs_per_s"],
            "tokens_per_s": metrics["throughput/tokens_per_s"],
            "p50_ms": metrics["latency/p50_ms"],
        }

    obey(measure)
    loop.run_until_complete(client.close())
    loop.run_until_complete(server.stop())


async def _connect(address: str) -> InferenceClient:
    return InferenceClient(address)


if __name__ == "__main__":
    main(sys.argv[1:])
