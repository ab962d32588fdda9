"""Timers of the measuring event loop are not rounded up to milliseconds."""

from __future__ import annotations

import asyncio
import time

from crossbench.load.precise_loop import precise_event_loop

WAIT_S = 0.0003


def test_a_timer_below_a_millisecond_takes_less_than_a_millisecond() -> None:
    async def shortest_s() -> float:
        took = []
        for _ in range(300):  # the shortest one counts: other work on the machine delays some
            start_s = time.perf_counter()
            await asyncio.sleep(WAIT_S)
            took.append(time.perf_counter() - start_s)
        return min(took)

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        assert WAIT_S <= runner.run(shortest_s()) < 0.0009


def test_replies_wake_the_loop_before_a_long_timer() -> None:
    async def exchange() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(4))
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, asyncio.timeout(60):
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"ping")
            received = await reader.read(4)
            writer.close()
        return received

    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        assert runner.run(exchange()) == b"ping"
