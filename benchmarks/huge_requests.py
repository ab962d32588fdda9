"""Send huge requests, legal and not, and measure what they cost the server and the others.

    python -m benchmarks.huge_requests [OVERRIDES ...]

`crossbench.serve backend=noop OVERRIDES` runs in a process of its own. While each request is
answered, a client asks for the server's health every 10 ms. The CPU time is that of the server. It
writes outputs/huge_requests.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.race import machine
from benchmarks.served import served
from crossbench.report.tables import markdown_table
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

BEAT_S = 0.01
AFTER_S = 0.3  # for what the server still does after its answer
HEADER = ("request", "size", "answered in", "CPU time", "worst health check", "memory", "answer")


def score(*passages: str) -> bytes:
    return pb.ScoreRequest(query="what is a river", passages=passages).SerializeToString()


def requests() -> Mapping[str, tuple[str, bytes]]:
    words = (" ".join(f"w{number}x{text}" for number in range(20_000)) for text in range(16))
    return {
        "one short passage": ("Score", score("a river is water")),
        "1 million empty pairs": ("ScorePairs", b"\x0a\x00" * 1_000_000),
        "2 million empty pairs": ("ScorePairs", b"\x0a\x00" * 2_000_000),
        "10 million empty pairs": ("ScorePairs", b"\x0a\x00" * 10_000_000),
        "33 million empty passages": ("Score", b"\x12\x00" * 33_000_000),
        "2 million unknown fields": ("Score", b"\x78\x00" * 2_000_000),
        "a text of 4.1 million dots": ("Score", score("." * 4_100_000)),
        "16 texts of 250,000 dots": ("Score", score(*["." * 250_000] * 16)),
        "16 texts of 20,000 new words": ("Score", score(*words)),
    }


async def measure(address: str, server: psutil.Process) -> list[tuple[str, ...]]:
    rows = []
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        for name, (method, data) in requests().items():
            beats_ms: list[float] = []
            beat = asyncio.create_task(check_health(channel, beats_ms))
            before_s, before_mb = cpu_s(server), server.memory_info().rss / 1e6
            started_s = time.perf_counter()
            answer = await send(channel, method, data)
            took_s = time.perf_counter() - started_s
            await asyncio.sleep(AFTER_S)
            beat.cancel()
            rows.append(
                (
                    name,
                    f"{len(data) / 1e6:.1f} MB",
                    f"{number(took_s)} s",
                    f"{number(cpu_s(server) - before_s)} s",
                    f"{number(max(beats_ms))} ms",
                    f"{server.memory_info().rss / 1e6 - before_mb:+.0f} MB",
                    answer,
                )
            )
    return rows


async def check_health(channel: grpc.aio.Channel, took_ms: list[float]) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            started_s = time.perf_counter()
            await health.Check(health_pb2.HealthCheckRequest())
            took_ms.append((time.perf_counter() - started_s) * 1e3)
            await asyncio.sleep(BEAT_S)


async def send(channel: grpc.aio.Channel, method: str, data: bytes) -> str:
    try:
        await channel.unary_unary(f"/crossbench.v1.Inference/{method}")(data, timeout=120)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {(error.details() or '')[:80]}"
    return "OK"


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(overrides: Sequence[str]) -> None:
    with served(["backend=noop", "dashboard=none", *overrides]) as server:
        rows = asyncio.run(measure(server.address, server.process))
    text = f"{machine()}\n\n{markdown_table(HEADER, rows, 'lrrrrrl')}\n"
    (outputs_dir() / "huge_requests.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="crossbench overrides of the server")
    main(parser.parse_args().overrides)
