"""Bounds on connections to the page: a slow, silent or surplus one is closed."""

from __future__ import annotations

import asyncio

import h11
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

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
            # Web sockets are in the set too, but the number of pages bounds them. Those that were
            # aborted leave it later.
            others = [
                item
                for item in self.connections
                if isinstance(item, BoundedProtocol) and not item.transport.is_closing()
            ]
            if len(others) > MAX_CONNECTIONS:
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


class BoundedSocket(WebSocketsSansIOProtocol):
    """A web socket that is closed if its client does not read for REQUEST_S.

    uvicorn's own end of such a connection waits until the client has read everything.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # `pause_writing` is called as soon as anything is unread, `resume_writing` once nothing is
        self.transport.set_write_buffer_limits(high=0)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # else uvicorn logs an error for each refused web socket

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_clock()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
