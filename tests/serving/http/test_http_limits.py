"""Limits of the HTTP port: bytes, values, headers, connections, and clients that are slow."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crossbench.errors import QueueFull, RequestTooLarge
from crossbench.models.folder import ModelFolder
from crossbench.serving.connections import MAX_METADATA_BYTES
from crossbench.serving.http.bodies import Bodies
from crossbench.serving.http.json_body import has_more_values, read_object
from crossbench.serving.http.settings import HttpSettings
from tests.helpers.http import Both, both, request_bytes
from tests.helpers.serving import SETTINGS, gated, noop, until
from tests.helpers.tiny_seeded import tiny_seeded

BODY = b'{"query": "q", "texts": ["a"]}'
MAX_BYTES = SETTINGS.max_request_bytes


def answer(connection: socket.socket) -> bytes:
    """Read until the server closes the connection, and return what it sent."""
    received = b""
    with connection:
        while True:
            try:
                part = connection.recv(65_536)
            except ConnectionResetError:
                return received
            if not part:
                return received
            received += part


def first_line(connection: socket.socket) -> bytes:
    """Return the first line of an answer; the connection may stay open."""
    received = b""
    while b"\r\n" not in received:
        part = connection.recv(65_536)
        if not part:
            break
        received += part
    return received.partition(b"\r\n")[0]


def sent(served: Both, *parts: bytes) -> socket.socket:
    connection = served.connect()
    for part in parts:
        connection.sendall(part)
    return connection


def test_a_body_above_the_limit_is_refused_and_its_client_reads_why(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            large = b" " * (MAX_BYTES + 1)
            headers = {"content-type": "application/json"}
            reply = await served.http.post("/rerank", content=large, headers=headers)
            assert reply.status_code == 413
            assert f"the limit is {MAX_BYTES}: split it, or raise" in reply.json()["error"]

            async def chunks():  # type: ignore[no-untyped-def]
                for _ in range(10):
                    yield large[: MAX_BYTES // 5]

            reply = await served.http.post("/rerank", content=chunks(), headers=headers)
            assert reply.status_code == 413

            # One that asks first, or declares far too much, sends nothing
            for size, expect in ((MAX_BYTES + 1, {"expect": "100-continue"}), (10**12, {})):
                asking = request_bytes("/rerank", b"", content_length=str(size), **expect)
                told = await asyncio.to_thread(answer, sent(served, asking))
                assert told.startswith(b"HTTP/1.1 413")
                assert b"connection: close" in told
            # The same with permission
            asking = request_bytes(
                "/rerank", b"", content_length=str(len(BODY)), expect="100-continue"
            )
            connection = sent(served, asking)
            assert b"100 Continue" in await asyncio.to_thread(first_line, connection)
            connection.sendall(BODY)
            assert b"200" in await asyncio.to_thread(first_line, connection)
            connection.close()
            assert (await served.post("/rerank", query="q", texts=["a"])).status_code == 200
            failed = dict((await served.grpc.metrics()).requests_failed)
            assert failed == {"INVALID_ARGUMENT": 4}

    asyncio.run(run())


def test_bodies_that_are_not_complete_may_have_so_many_bytes_in_all() -> None:
    async def run() -> None:
        bodies, rest = Bodies(1000), asyncio.Event()

        def slow() -> Callable[[], Awaitable[Any]]:
            parts = iter(
                [{"body": b"x" * 900, "more_body": True}, {"body": b"", "more_body": False}]
            )

            async def receive() -> Any:
                part = next(parts)
                if not part["more_body"]:
                    await rest.wait()
                return {"type": "http.request", **part}

            return receive

        held = [asyncio.create_task(bodies.receive([], slow())) for _ in range(71)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="is receiving 64800 bytes of requests, the limit is"):
            await bodies.receive([], slow())
        rest.set()
        assert {len(body) for body in await asyncio.gather(*held)} == {900}
        assert bodies._held == 0

    asyncio.run(run())


def test_requests_in_a_row_on_one_connection_are_answered_in_turn_up_to_a_limit(
    seeded_model: ModelFolder,
) -> None:
    request = request_bytes("/rerank", BODY)

    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            last = request_bytes("/rerank", BODY, connection="close")
            told = await asyncio.to_thread(answer, sent(served, request * 5 + last))
            assert told.count(b"HTTP/1.1 200") == 6
            told = await asyncio.to_thread(answer, sent(served, request * 500))
            assert told.count(b"HTTP/1.1 200") < 20

    asyncio.run(run())


@pytest.mark.parametrize(
    "body",
    [
        b'{"query":"q","texts":[' + b'"",' * 1_000_000 + b'""]}',
        b'{"query":"q","texts":[' + b"[]," * 1_000_000 + b"[]]}",
        b'{"query":"q","texts":[' + b"0," * 1_000_000 + b"0]}",
        b"{" + b'"":{},' * 500_000 + b'"":0}',
        b"[" * 3_000_000,
        b'"' * 3_000_000,
    ],
    ids=["texts", "arrays", "numbers", "objects", "depth", "quotes"],
)
def test_millions_of_values_are_refused_without_making_them(body: bytes) -> None:
    tracemalloc.start()
    try:
        started_s = time.perf_counter()
        with pytest.raises(RequestTooLarge, match="JSON values, too many for 1024 texts"):
            read_object(body, 1024)
        taken_s = time.perf_counter() - started_s
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert taken_s < 1.0  # some milliseconds on an idle machine


@pytest.mark.parametrize(
    "text",
    [b'a, b [c] {d} \\" , ' * 100_000, b"\\\\" * 1_000_000, b'\\"' * 1_000_000, b"\\u0022," * 99],
    ids=["signs", "backslashes", "quotes", "escapes"],
)
@pytest.mark.parametrize("end", [b'"', b""], ids=["closed", "open"])
def test_what_is_in_a_text_does_not_count(text: bytes, end: bytes) -> None:
    started_s = time.perf_counter()
    assert not has_more_values(b'{"query":"' + text + end + b',"texts":["a","b"]}', 20)
    assert time.perf_counter() - started_s < 1.0


def test_headers_above_the_limit_are_refused(seeded_model: ModelFolder) -> None:
    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            for headers in (
                {"x_huge": "h" * MAX_METADATA_BYTES},
                {f"x_{number}": "v" * 50 for number in range(400)},
            ):
                told = await asyncio.to_thread(
                    answer, sent(served, request_bytes("/rerank", BODY, **headers))
                )
                assert told.startswith(b"HTTP/1.1 431")
                assert b"the headers have more than 16384 bytes" in told
            connection = sent(served, b"GET /health HTTP/1.1\r\nx: ")
            told = await asyncio.to_thread(endless, connection)
            assert told == b"" or told.startswith(b"HTTP/1.1 431")

    asyncio.run(run())


def endless(connection: socket.socket) -> bytes:
    """Send a header that does not end, until the server closes the connection."""
    try:
        for _ in range(1000):
            connection.sendall(b"h" * 10_000)
    except OSError:
        return answer(connection)
    raise AssertionError("10 MB of headers were accepted")


def test_the_connection_above_the_limit_is_closed_at_once(seeded_model: ModelFolder) -> None:
    limits = dataclasses.replace(SETTINGS.connections, max_connections=3)

    async def run() -> None:
        async with both([noop(seeded_model)], connections=limits) as served:
            held = [served.connect() for _ in range(3)]
            listener = served.server._http
            assert listener is not None
            await until(lambda: len(listener._state.connections) == 3)
            assert await asyncio.to_thread(answer, served.connect()) == b""
            held.pop().close()
            await until(lambda: len(listener._state.connections) == 2)
            assert (await served.http.get("/health")).status_code == 200
            for connection in held:
                connection.close()

    asyncio.run(run())


def test_requests_above_the_limit_are_refused(seeded_model: ModelFolder) -> None:
    limits = dataclasses.replace(SETTINGS.connections, max_requests=1)
    backend = gated(seeded_model)

    async def run() -> None:
        async with both([backend], connections=limits) as served:
            first = asyncio.create_task(served.post("/rerank", query="q", texts=["a"]))
            await until(lambda: backend.ran)
            reply = await served.post("/rerank", query="q", texts=["a"])
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
            assert "raise server.connections.max_requests" in reply.json()["error"]
            assert (await served.http.get("/health")).status_code == 200
            backend.gate.set()
            assert (await first).status_code == 200

    asyncio.run(run())


def test_clients_that_stop_halfway_are_told_or_closed_and_others_see_nothing(
    seeded_model: ModelFolder,
) -> None:
    request = request_bytes("/rerank", BODY)
    stalls = {
        "nothing": b"",
        "half of the headers": request[:30],
        "line ends": b"\r\n\r\n",
        "a request, then half of one": request + request[:20],
        "no body": request[: -len(BODY)],
        "half of the body": request[:-10],
    }

    async def run() -> None:
        async with both([noop(seeded_model)], http=HttpSettings(0, 0.5)) as served:
            held = {name: sent(served, part) for name, part in stalls.items()}
            started_s = time.monotonic()
            while time.monotonic() - started_s < 0.4:
                assert (await served.post("/rerank", query="q", texts=["a"])).status_code == 200
            told = {
                name: await asyncio.to_thread(answer, connection)
                for name, connection in held.items()
            }
            assert told["nothing"] == told["half of the headers"] == told["line ends"] == b""
            assert told["a request, then half of one"].startswith(b"HTTP/1.1 200")
            for name in ("no body", "half of the body"):
                assert told[name].startswith(b"HTTP/1.1 408")
                assert b"the body did not arrive within 0.5 s" in told[name]
            failed = (await served.grpc.metrics()).requests_failed
            assert not failed

    asyncio.run(run())


def test_a_client_that_does_not_take_its_reply_is_closed(tmp_path: Path) -> None:
    model = tiny_seeded(tmp_path, pooling="mean")

    async def run() -> None:
        async with both([noop(model)], http=HttpSettings(0, 0.5)) as served:
            body = b'{"inputs": [' + b",".join([b'"a b c"'] * 64) + b"]}"
            connection = served.connect()
            connection.setblocking(False)
            listener = served.server._http
            assert listener is not None
            await until(lambda: listener._state.connections)
            request, loop = request_bytes("/embed", body), asyncio.get_running_loop()

            async def send_for_ever() -> None:
                while True:  # until the buffers are full of replies that nobody reads
                    await loop.sock_sendall(connection, request)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(send_for_ever(), 60)
            await until(lambda: not listener._state.connections)
            connection.close()

    asyncio.run(run())
