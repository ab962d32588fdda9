"""What a request costs the client of target=http, against a server that does no work.

    python -m benchmarks.http_clients

Requests of 32 pairs with 60 words each, eight in flight, in rounds that take turns: crossbench's
own client over HTTP, the two HTTP libraries without it, and crossbench's client over gRPC against
an empty server. It prints the CPU time of this process per request and the requests per second.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httpx

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.http_client import HttpClient, HttpSettings

ROUNDS, REQUESTS, IN_FLIGHT = 5, 1000, 8
MESSAGE = pb.ScoreRequest(query="what is a passage", passages=["word " * 60] * 32)
BODY = {"query": MESSAGE.query, "texts": [*MESSAGE.passages], "truncate": True}
Send = Callable[[], Awaitable[object]]


async def measured(send: Send) -> tuple[float, float]:
    """Return microseconds of CPU time per request, and requests per second."""
    await send()
    left = REQUESTS

    async def user() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await send()

    cpu_s, started_s = time.process_time(), time.perf_counter()
    await asyncio.gather(*(user() for _ in range(IN_FLIGHT)))
    spent_s, seconds = time.process_time() - cpu_s, time.perf_counter() - started_s
    return spent_s / REQUESTS * 1e6, REQUESTS / seconds


async def compare(url: str, address: str) -> None:
    settings = HttpSettings(url, "tei", None, None, {}, None, None, 100, 1 << 26)
    async with (
        HttpClient(settings) as ours,
        aiohttp.ClientSession() as session,
        httpx.AsyncClient(trust_env=False) as client,
        InferenceClient(address) as grpc_client,
    ):

        async def by_aiohttp() -> object:
            async with session.post(f"{url}/rerank", json=BODY) as response:
                return json.loads(await response.read())

        async def by_httpx() -> object:
            return (await client.post(f"{url}/rerank", json=BODY)).json()

        ways: dict[str, Send] = {
            "target=http": lambda: ours.send(MESSAGE),
            "aiohttp alone": by_aiohttp,
            "httpx alone": by_httpx,
            "gRPC": lambda: grpc_client.send(MESSAGE),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, send in ways.items():
                found[name].append(await measured(send))
    for name, rounds in found.items():
        cpu_us, rate = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{name:14} {cpu_us:6.0f} us of CPU time per request {rate:7.0f} requests/s")


def main() -> None:
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.contestants.{name}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("null_http_server", "empty_server")
    ]  # fmt: skip
    try:
        lines = [server.stdout.readline() for server in servers if server.stdout]
        asyncio.run(compare(*(line.split()[-1] for line in lines)))
    finally:
        for server in servers:
            server.communicate()


if __name__ == "__main__":
    main()
