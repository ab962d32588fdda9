"""Servers that are up but of no use: they say nothing, too little, or something else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 21\r\nConnection: close\r\n\r\n"
    b"<html>Log in!</html>\n"
)
ANSWERS = {
    "silent": b"",
    "byte by byte": HEAD,
    "error": ERROR,
    "another page": PAGE,
    "no http": b"\x00\xff garbage\r\n\r\n",
}


@dataclass
class BadServer:
    """A server on `port`; `connections` counts those that it has accepted."""

    port: int
    connections: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def bad_server(kind: str) -> Iterator[BadServer]:
    """Run a server with one of ANSWERS: it accepts every connection and answers like that."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = BadServer(listening.getsockname()[1])
        kept: list[socket.socket] = []

        def answer(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(ANSWERS[kind])
                if kind == "byte by byte":
                    while not server._ended.wait(0.05):
                        connection.sendall(b" ")
                if kind not in ("silent", "byte by byte"):
                    connection.close()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    server.connections += 1
                    kept.append(connection)
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            server._ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
