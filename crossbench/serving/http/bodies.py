"""The bodies of requests: received within limits, before anything is made of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crossbench.errors import QueueFull, RequestTooLarge

Headers = list[tuple[bytes, bytes]]
# A body above the limit is received and thrown away, so that its client reads the error, up to this
# multiple of the limit. Above it, the connection is closed.
DISCARDED = 16
# Bodies that arrive in pieces may have this multiple of the limit in all
AT_ONCE = 64
RETRY_S = 1.0


class ClientLeft(Exception):
    """The client closed the connection before its request was complete."""


class Bodies:
    """Receives the bodies of all requests of a server; `limit` is the maximum bytes of one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0  # bytes of bodies that are not complete

    async def receive(self, headers: Headers, receive: Callable[[], Awaitable[Any]]) -> bytes:
        """Return a body.

        Raises:
            RequestTooLarge: it has more bytes than the limit.
            QueueFull: all incomplete bodies together have too many.
            ClientLeft: the rest of it does not come.
        """
        declared = int(header(headers, b"content-length") or 0)
        waits = bool(header(headers, b"expect"))  # for permission to send the body
        if declared > self._limit and (waits or declared > self._limit * DISCARDED):
            raise self._too_large(declared)
        message = await _next(receive)
        if not message["more_body"] and len(message["body"]) <= self._limit:
            return bytes(message["body"])
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                body = message["body"]
                size += len(body)
                if size <= self._limit:
                    parts.append(body)
                    self._held += len(body)
                    self._check_held()
                elif size > self._limit * DISCARDED:
                    raise self._too_large(size)
                if not message["more_body"]:
                    break
                message = await _next(receive)
        finally:
            self._held -= sum(map(len, parts))
        if size > self._limit:
            raise self._too_large(size)
        return b"".join(parts)

    def _check_held(self) -> None:
        if self._held > self._limit * AT_ONCE:
            raise QueueFull(
                f"the server is receiving {self._held} bytes of requests, the limit is "
                f"{self._limit * AT_ONCE}: send the request again later",
                RETRY_S,
            )

    def _too_large(self, size: int) -> RequestTooLarge:
        return RequestTooLarge(
            f"the request has {size} bytes or more, the limit is {self._limit}: split it, or raise "
            "server.max_request_bytes"
        )


def header(headers: Headers, name: bytes) -> bytes:
    """Return the first header of this name, in lower case, or nothing."""
    for key, value in headers:
        if key == name:
            return value
    return b""


async def _next(receive: Callable[[], Awaitable[Any]]) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message
