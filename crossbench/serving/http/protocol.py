"""HTTP/1.1 on uvicorn's fastest protocol, with the limits that it lacks."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from crossbench.serving.connections import HELLO_S, MAX_METADATA_BYTES
from crossbench.serving.http import tei
from crossbench.serving.server_settings import ServerSettings

MAX_PIPELINED = 8  # requests that one connection may send before the first is answered


class BoundedProtocol(HttpToolsProtocol):
    """A connection with limits in time and size.

    A client has HELLO_S for the headers of a request, from the opening of the connection or from
    their first byte (or `receive_s`, if that is less), and then `receive_s` for its body. After
    that the app is cancelled with `is_late`, so that it can answer. `receive_s` is also the time to
    take a reply. The app is cancelled, too, when the connection is lost, as gRPC does it.
    """

    def __init__(self, config: Config, state: ServerState, settings: ServerSettings) -> None:
        super().__init__(config, state, {})
        self._age_s = settings.connections.age_s
        self._receive_s = settings.http.receive_s
        self._hello_s = min(HELLO_S, self._receive_s)
        self.task: asyncio.Task[Any] | None = None  # set by the app while it answers
        self.is_late = False
        self._answering: RequestResponseCycle | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._in_headers = self._in_body = False
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._opened_s = self.loop.time()
        self._start_clock(self._hello_s)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._in_headers:
            self._header_bytes = 0
        self._header_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_headers and self._header_bytes > MAX_METADATA_BYTES:
            self._refuse_headers()
        elif self._in_body:
            self._start_clock(self._receive_s)
        elif self._in_headers or self.cycle is None or self.cycle.response_complete:
            # It has sent a part of the headers, or only line ends
            self._start_clock(self._hello_s)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            raise ValueError("too many requests at once on one connection")
        super().on_message_begin()
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]
        self._in_headers = True

    def on_headers_complete(self) -> None:
        self._in_headers, self._in_body = False, True
        self._stop_clock()
        if self._header_bytes > MAX_METADATA_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_METADATA_BYTES:
                self._refuse_headers()
                raise ValueError("the headers are too large")
        super().on_headers_complete()
        if self._age_s is not None and self.loop.time() - self._opened_s > self._age_s:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():  # it stays open until the client has taken the reply
            self.loop.call_later(self._receive_s, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_clock(self._receive_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_clock()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # `close` would wait until the client takes its reply
        else:
            super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)
        if self._answering is not None:  # uvicorn looks only at the latest one
            self._answering.disconnected = True
        if self.task is not None:
            self.task.cancel()

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, "these bytes are no HTTP/1.1 request: send one, to the address of HTTP")

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error, without the app, and close the connection."""
        if self.transport.is_closing():
            return
        body = orjson.dumps(tei.error(status, message))
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()
        self.loop.call_later(self._receive_s, self.transport.abort)

    def _refuse_headers(self) -> None:
        self.refuse(
            431, f"the headers have more than {MAX_METADATA_BYTES} bytes, the limit: send fewer"
        )

    def _start_clock(self, seconds: float) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(seconds, self._expire)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _expire(self) -> None:
        self._clock = None
        if self._in_body and self.task is not None and not self.pipeline:
            self.is_late = True
            self.task.cancel()
        else:
            # Not `close`, which waits until the client has taken what was sent to it
            self.transport.abort()
