"""Bounds on connections to the page: a slow, silent or surplus one is closed."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0  # to send a whole request and to take its whole answer
MAX_CONNECTIONS = 256  # each needs a file descriptor, and a process has about a thousand
HEADER_BYTES = 16_384
MESSAGE_BYTES = 65_536  # of a web socket; the page sends a few hundred bytes


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for each request, which uvicorn lacks.

    uvicorn only closes a connection that is idle after an answer. Here the time runs from the
    opening of the connection, then from the first byte of each further request, until the answer
    has been sent. Beyond MAX_CONNECTIONS, the connection that waits longest is closed.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()
        if len(self.connections) > MAX_CONNECTIONS:
            # Web sockets are in the set too, but the number of pages bounds them
            others = [item for item in self.connections if isinstance(item, BoundedProtocol)]
            min(others, key=BoundedProtocol.ends_at).expire()

    def ends_at(self) -> float:
        """When this connection is closed, on the event loop's clock; an idle one comes first."""
        return self._deadline.when() if self._deadline is not None else 0.0

    def expire(self) -> None:
        # Not `close`, which waits until the client has read what was sent to it
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._start_clock()
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._stop_clock()
        if self.conn.their_state is not h11.DONE or self.transport.get_write_buffer_size():
            self._start_clock()  # the rest of a body is to come, or the answer is not yet taken
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_clock()  # the web socket's own pings find out whether the client is alive
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self.expire)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
