"""Connections of HTTP/2 that stop halfway, byte by byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Mapping

from crossbench.system.addresses import split_address

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _header(name: str, value: str) -> bytes:
    """One header of HPACK, literal and without an index."""
    key, text = name.encode(), value.encode()
    return b"\x00" + bytes([len(key)]) + key + bytes([len(text)]) + text


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HELLO = _PREFACE + _frame(_SETTINGS, 0, 0)
_HEADER_BLOCK = b"".join(
    _header(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/crossbench.v1.Inference/Score"),
        (":authority", "tests"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)
_OPEN = _HELLO + _frame(_HEADERS, _END_HEADERS, 1, _HEADER_BLOCK)
_MESSAGE = b"\x00" + struct.pack(">I", 1000) + b"x" * 1000

# What a client sends before it stops. The first four have not said hello.
STALLS: Mapping[str, bytes] = {
    "nothing": b"",
    "half of the preface": _PREFACE[:10],
    "the preface": _PREFACE,
    "half of a TLS hello": b"\x16\x03\x01\x02\x00\x01",
    "settings": _HELLO,
    "half of a frame of headers": _OPEN[: len(_HELLO) + 30],
    "headers without their end": _HELLO + _frame(_HEADERS, 0, 1, _HEADER_BLOCK),
    "headers, no message": _OPEN,
    "half of a message": _OPEN + _frame(_DATA, 0, 1, _MESSAGE[:500]),
    "half of a frame of data": _OPEN + _frame(_DATA, _END_STREAM, 1, _MESSAGE)[:300],
}


def stalled(address: str, sent: bytes) -> socket.socket:
    """Connect, send these bytes and stop."""
    connection = socket.create_connection(split_address(address, "address"), 10.0)
    connection.sendall(sent)
    return connection


def closed_after(connection: socket.socket, limit_s: float, *, answers: bool) -> float | None:
    """Return the seconds until the server closes the connection, None if it does not in time.

    With `answers`, the client acknowledges settings and pings, as a real client does.
    """
    started_s, buffer = time.monotonic(), b""
    with connection:
        while (left_s := started_s + limit_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            try:
                received = connection.recv(65_536)
            except TimeoutError:
                return None
            except OSError:
                received = b""
            if not received:
                return time.monotonic() - started_s
            buffer += received
            while len(buffer) >= 9 + (size := int.from_bytes(buffer[:3])):
                kind, flags, payload = buffer[3], buffer[4], buffer[9 : 9 + size]
                buffer = buffer[9 + size :]
                if answers and kind in (_SETTINGS, _PING) and not flags & _ACK:
                    reply = payload if kind == _PING else b""
                    with contextlib.suppress(OSError):
                        connection.sendall(_frame(kind, _ACK, 0, reply))
    return None
