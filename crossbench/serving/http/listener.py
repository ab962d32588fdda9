"""Listens for HTTP: accepts connections up to the limit, and closes them at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from crossbench.errors import ConfigError
from crossbench.serving.connections import HELLO_S
from crossbench.serving.http.app import App
from crossbench.serving.http.protocol import BoundedProtocol
from crossbench.serving.server_settings import ServerSettings
from crossbench.system.addresses import join_address

log = logging.getLogger(__name__)

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S = 1.0  # until the next connection is accepted, if there is no file descriptor for it
ACCEPTED_AT_ONCE = 100
POLL_S = 0.01
CLOSE_S = 1.0  # for TLS to say goodbye


class Listener:
    """The HTTP port. It belongs to the event loop on which start() is called.

    It accepts connections itself, since uvicorn's own server handles signals, and counts no
    connections that are still in TLS's handshake.

    Raises:
        ConfigError: the port is in use or not permitted, or the host is not on this machine.
    """

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self._settings = settings
        self._tls = settings.tls.context()
        self._state = ServerState()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._config = Config(
            app,
            http="httptools",
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level=logging.ERROR,  # its warnings are about clients' mistakes
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, round(settings.connections.idle_s)),
        )
        self._config.load()
        assert settings.http.port is not None
        self._socket = listening_socket(settings, settings.http.port)

    def start(self) -> str:
        """Start to accept connections; return the URL."""
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._listen()
        port = self._socket.getsockname()[1]
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{join_address(settings.host, port)}"

    async def stop(self, flush_s: float) -> None:
        """Close the port, then the connections: those with a reply on its way within `flush_s`."""
        if self._socket.fileno() < 0:
            return  # it is stopped already
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in list(self._handshakes):
            task.cancel()
        connections = self._state.connections
        for connection in list(connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                while connections:  # uvicorn's set, which says nothing when it changes
                    await asyncio.sleep(POLL_S)
        for connection in list(connections):
            connection.transport.abort()

    def _listen(self) -> None:
        # Not sock_accept(), which can wait for ever on uvloop although a connection waits
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Accept the connections that wait, but let other work go on between many of them."""
        limit = self._settings.connections.max_connections
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.warning("a connection cannot be accepted: %s", error)
                    self._loop.remove_reader(self._socket)
                    self._pause = self._loop.call_later(PAUSE_S, self._listen)
                return  # mostly since none waits any more
            accepted.setblocking(False)
            if len(self._state.connections) + len(self._handshakes) >= limit:
                accepted.close()
                continue
            task = self._loop.create_task(self._connect(accepted))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {"ssl_handshake_timeout": HELLO_S, "ssl_shutdown_timeout": CLOSE_S}
        with contextlib.suppress(OSError, ssl.SSLError):  # the client's fault: it gets no answer
            await self._loop.connect_accepted_socket(
                lambda: BoundedProtocol(self._config, self._state, self._settings),
                accepted,
                ssl=self._tls,
                **options,
            )


def listening_socket(settings: ServerSettings, port: int) -> socket.socket:
    """Return a listening socket, whose queue has room for `max_pending_requests` connections.

    Raises:
        ConfigError: the port is in use or not permitted, or the host is not on this machine.
    """
    try:
        addresses = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = addresses[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # Allow a port that was in use a moment ago, but not one that another process has
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(settings.max_pending_requests)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(settings.cannot_listen("server.http.port", port, error)) from error
    listener.setblocking(False)
    return listener
