"""A synchronous HTTP client that shares no code with crossbench, on plain sockets.

    python -m benchmarks.contestants.raw_http URL LISTS BATCH IN_FLIGHT SERVER_PID

LISTS is a JSON file with a list of [query, [passage, ...]]. IN_FLIGHT threads each send a request
of BATCH texts of one query to /rerank as soon as their previous one is answered. Requests are made
in advance, so the client costs less than that of gRPC.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import time
from pathlib import Path
from statistics import median
from threading import Lock, Thread
from urllib.parse import urlsplit

from benchmarks.contestants.lists import batches
from benchmarks.contestants.protocol import answer_requests
from benchmarks.contestants.server_cpu import ServerCpu


def request_bytes(host: str, query: str, texts: list[str]) -> bytes:
    body = json.dumps({"query": query, "texts": texts}).encode()
    head = (
        f"POST /rerank HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request and return the body of the reply.

    Raises:
        ValueError: the reply has another status than 200.
    """
    connection.sendall(request)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _some(connection)
    head, body = received[:end].lower(), received[end + 4 :]
    if not head.startswith(b"http/1.1 200"):
        raise ValueError(received)
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += _some(connection)
    return body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ValueError("the server closed the connection")
    return data


def main(url: str, lists: Path, batch: int, in_flight: int, server_pid: int) -> None:
    address = urlsplit(url)
    requests = [
        request_bytes(address.netloc, query, passages) for query, passages in batches(lists, batch)
    ]
    endless, turn = itertools.cycle(requests), Lock()

    def user(end_s: float, taken_ms: list[float]) -> None:
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (sent_s := time.perf_counter()) < end_s:
                with turn:
                    request = next(endless)
                body = exchange(connection, request)
                taken_ms.append((time.perf_counter() - sent_s) * 1e3)
                if body.count(b'"score"') != batch:
                    raise ValueError(body)

    def measure(seconds: float) -> dict[str, float]:
        taken_ms: list[float] = []
        cpu, started_s = ServerCpu(server_pid), time.perf_counter()
        users = [
            Thread(target=user, args=(started_s + seconds, taken_ms)) for _ in range(in_flight)
        ]
        for thread in users:
            thread.start()
        for thread in users:
            thread.join()
        return {
            "requests_per_s": len(taken_ms) / (time.perf_counter() - started_s),
            "p50_ms": median(taken_ms),
            "cpu_us": cpu.us_per(len(taken_ms)),
        }

    answer_requests(measure)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *(int(argument) for argument in sys.argv[3:6]))
