"""The web server of the dashboard process: socket, routes and page."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from crossbench.dashboard.board import Board
from crossbench.dashboard.connections import (
    HEADER_BYTES,
    MESSAGE_BYTES,
    BoundedProtocol,
    BoundedSocket,
)
from crossbench.dashboard.guard import Guard
from crossbench.dashboard.page import add_page
from crossbench.dashboard.pages import PageLimit, Pages
from crossbench.dashboard.routes import add_routes
from crossbench.dashboard.token import TokenGate
from crossbench.dashboard.watch import Watcher
from crossbench.errors import ConfigError
from crossbench.system.addresses import (
    check_host,
    is_loopback,
    join_address,
    listen_error_message,
    reachable_host,
)

PORTS_TRIED = 100
NICENESS = 10


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on `port`, or on the next free port if it is taken; 0 means any.

    Raises:
        ConfigError: the host is not this machine, the port is invalid, or all ports are listener.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"dashboard.port must be 0 (any free port) to 65535, got {port}")
    host = check_host(host, "dashboard")  # an empty host would listen on every address
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            return _bind(host, candidate)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ConfigError(listen_error_message("dashboard", host, error)) from error
    raise ConfigError(
        f"no port from {port} to {port + PORTS_TRIED - 1} is free on {host}: set another "
        "dashboard.port, or 0 for any free port"
    )


def _bind(host: str, port: int) -> socket.socket:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A name may resolve to IPv6 and IPv4; IPv4 works in every browser
    family, kind, protocol, _, address = min(addresses, key=lambda item: item[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        # Allow a port that was in use a moment ago, but not one that another process listens on
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of the dashboard for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://{join_address(reachable_host(host), port)}"


def notes_of(listener: socket.socket, wanted: int, token: str | None) -> list[str]:
    """What the user should know: another port than `wanted`, how to give the token, who gets in."""
    host, port = listener.getsockname()[:2]
    notes = [f"port {wanted} is taken"] if wanted not in (0, port) else []
    if token is not None:
        notes.append("open it once with /?token=TOKEN")
    elif not is_loopback(host):
        notes.append(
            f"warning: everybody who can reach {host} can read and reset this page: set "
            "dashboard.token, or dashboard.host=127.0.0.1"
        )
    return notes


def serve(
    listener: socket.socket,
    board: Board,
    journal: Path | None,
    started: Callable[[], None],
    token: str | None,
    max_pages: int,
) -> None:
    """Serve `board` until SIGINT or SIGTERM; call `started` once the server accepts requests.

    With a `token`, every route needs it. At most `max_pages` browser tabs are served at once.
    """
    os.nice(NICENESS)  # the measured server may run on the same machine
    watcher = Watcher(board, journal)
    pages = Pages(max_pages)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watcher.run())
        started()
        yield
        watching.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PageLimit, pages=pages)
    if token is not None:
        app.add_middleware(TokenGate, token=token, port=listener.getsockname()[1])
    app.add_middleware(Guard)  # the last one comes first
    add_routes(app, board, watcher)
    add_page(app, board, watcher, pages)
    logging.getLogger("nicegui").setLevel(logging.ERROR)  # it logs every 404
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        loop="asyncio",
        http=BoundedProtocol,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ws=BoundedSocket,
        ws_max_size=MESSAGE_BYTES,
        ws_per_message_deflate=False,  # compression is useless on loopback
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])
