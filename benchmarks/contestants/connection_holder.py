"""Holds connections to a server until its standard input closes.

    python -m benchmarks.contestants.connection_holder HOST:PORT KIND COUNT

KIND is `silent` (connected, nothing sent) or `idle` (clients of gRPC that have had an answer). It
prints the number of connections once all are open, and at the end the number that are still open.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys

from crossbench.serving.client import InferenceClient
from crossbench.system.addresses import split_address

AT_ONCE = 50


async def hold(address: str, kind: str, count: int) -> None:
    """Open the connections, then wait for the end of standard input."""
    if kind == "silent":
        sockets = [
            socket.create_connection(split_address(address, "address")) for _ in range(count)
        ]
        print(len(sockets), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(sum(_is_open(item) for item in sockets), flush=True)
        return
    clients = [InferenceClient(address) for _ in range(count)]
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(client.ready(60.0) for client in clients[first : first + AT_ONCE]))
    print(len(clients), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(len(clients), flush=True)


def _is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed the connection; it may have sent its settings."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(hold(sys.argv[1], sys.argv[2], int(sys.argv[3])))
