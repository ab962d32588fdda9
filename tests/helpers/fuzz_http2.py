"""Connections that speak HTTP/2 badly, or something else: bytes on a plain TCP socket."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.helpers.wire import score_request

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
GOOD = score_request(b"a river", [b"runs"])
# gRPC's server writes its first status of a connection as plain text
_STATUS = re.compile(rb"grpc-status.(\d+)", re.DOTALL)
_SCORE = b"/crossbench.v1.Inference/Score"


@dataclass(frozen=True)
class Rubbish:
    """What a connection sends."""

    kind: str
    content: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
    return head + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK's literal without index."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    number = len(text)
    if number < 127:
        return bytes((number,))
    out, number = bytearray((127,)), number - 127
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def headers(path: bytes = _SCORE, **changes: bytes | None) -> bytes:
    """Return the headers of a good call with changes; None leaves one out.

    In names, `_` stands for `-`, and `p_` begins those that HTTP/2 begins with a colon.
    """
    wanted: dict[str, bytes | None] = {
        "p_method": b"POST", "p_scheme": b"http", "p_path": path, "p_authority": b"localhost",
        "content_type": b"application/grpc", "te": b"trailers",
    }  # fmt: skip
    wanted |= changes
    return b"".join(
        header(re.sub("^p-", ":", name.replace("_", "-")).encode(), value)
        for name, value in wanted.items()
        if value is not None
    )


def message(body: bytes, compressed: int = 0, length: int | None = None) -> bytes:
    """Return a gRPC message with its prefix, whose length may be a lie."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


def call(head: bytes, data: bytes, stream: int = 1) -> bytes:
    start = PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, stream, head)
    parts = [data[at : at + 16_384] for at in range(0, len(data), 16_384)] or [b""]
    frames = [frame(DATA, 0, stream, part) for part in parts[:-1]]
    return b"".join((start, *frames, frame(DATA, END_STREAM, stream, parts[-1])))


def _calls() -> Iterator[tuple[str, bytes]]:
    """Calls whose headers or message prefixes are wrong."""
    good = message(GOOD)
    for value in (b"", b"1", b"1x", b"-1S", b"99999999S", b"999999999999S", b"1 S", b"\xff", b"0n"):
        yield f"grpc-timeout {value!r}", call(headers(grpc_timeout=value), good)
    for kind in (None, b"", b"text/html", b"application/grpc+json", b"application/grpcx", b"\x00"):
        yield f"content-type {kind!r}", call(headers(content_type=kind), good)
    for method in (None, b"GET", b"PUT", b"CONNECT", b"", b"post"):
        yield f"method {method!r}", call(headers(p_method=method), good)
    for path in (b"", b"Score", b"*", b"/\x00", b"/" + b"p" * 9000, b"/%2e%2e", b"\xff/\xff"):
        yield f"path {path[:9]!r}", call(headers(path), good)
    for te in (None, b"", b"gzip"):
        yield f"te {te!r}", call(headers(te=te), good)
    for odd in (b"\xff\xfe", b"\xc3", b"a\x00b", b"\x7f", "é".encode(), b" "):
        yield f"value {odd!r}", call(headers(x_odd=odd), good)
        yield f"value {odd!r} of a path that is unknown", call(headers(b"/x/" + odd), good)
        yield f"authority {odd!r}", call(headers(p_authority=odd), good)
        yield f"user agent {odd!r}", call(headers(user_agent=odd), good)
        yield f"name {odd!r}", call(headers() + header(odd, b"x"), good)
        yield f"{odd!r}-bin", call(headers(x_bin=odd), good)
    yield "no authority", call(headers(p_authority=None), good)
    yield "no scheme", call(headers(p_scheme=None), good)
    for encoding in (b"gzip", b"deflate", b"br", b"zstd", b"snappy", b"", b"identity", b"\xff"):
        for flag in (0, 1, 2, 255):
            rubbish = message(GOOD, compressed=flag)
            yield (
                f"encoding {encoding!r}, flag {flag}",
                call(headers(grpc_encoding=encoding), rubbish),
            )
    yield "flag without encoding", call(headers(), message(GOOD, compressed=1))
    packed = gzip.compress(GOOD)
    for cut in (0, 1, 5, len(packed) // 2, len(packed) - 1):
        head = headers(grpc_encoding=b"gzip")
        yield "gzip cut off", call(head, message(packed[:cut], compressed=1))
    bomb = gzip.compress(score_request(b"q", [bytes(200_000_000)]), 9)
    yield "gzip bomb", call(headers(grpc_encoding=b"gzip"), message(bomb, compressed=1))
    for length in (0, 1, len(GOOD) - 1, len(GOOD) + 1, 2**31, 2**32 - 1):
        yield f"length {length}", call(headers(), message(GOOD, length=length))
    yield "two messages", call(headers(), good * 2)
    yield "no message", call(headers(), b"")
    yield "half a prefix", call(headers(), b"\x00\x00")
    yield "many headers", call(headers() + header(b"x", b"y") * 2000, good)
    yield "large header", call(headers(x=b"y" * 100_000)[:60_000], good)
    yield "header without name", call(headers() + header(b"", b"y"), good)
    yield "upper case", call(headers() + header(b"X-Upper", b"y"), good)
    yield "line end in header", call(headers() + header(b"x", b"a\r\nb: c"), good)
    yield "bad -bin", call(headers() + header(b"x-bin", b"!!not base64!!"), good)


def _frames() -> Iterator[tuple[str, bytes]]:
    """Frames that break the rules of HTTP/2."""
    start = PREFACE + frame(SETTINGS, 0, 0, b"")
    good = headers()
    yield "preface only", PREFACE
    yield "preface cut off", PREFACE[:11]
    yield "HTTP/1.1", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield "TLS", bytes.fromhex("16030100f8010000f40303") + bytes(200)
    yield "nothing", b""
    yield "settings flood", start + frame(SETTINGS, 0, 0, b"") * 3000
    yield "ping flood", start + frame(PING, 0, 0, bytes(8)) * 3000
    yield (
        "reset flood",
        start
        + b"".join(
            frame(HEADERS, END_HEADERS, stream, good) + frame(RST, 0, stream, bytes(4))
            for stream in range(1, 1001, 2)
        ),
    )
    yield (
        "many streams",
        start + b"".join(frame(HEADERS, END_HEADERS, stream, good) for stream in range(1, 601, 2)),
    )
    yield (
        "continuation flood",
        start
        + frame(HEADERS, 0, 1, good)
        + frame(CONTINUATION, 0, 1, header(b"x", b"y" * 1000)) * 300,
    )
    yield "continuation of nothing", start + frame(CONTINUATION, END_HEADERS, 1, good)
    yield (
        "empty continuations",
        start + frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 2000,
    )
    yield "data of stream 0", start + frame(DATA, 0, 0, b"x")
    yield "data of no stream", start + frame(DATA, 0, 7, b"x" * 100)
    yield "even stream", start + frame(HEADERS, END_HEADERS | END_STREAM, 2, good)
    yield "stream twice", start + frame(HEADERS, END_HEADERS | END_STREAM, 1, good) * 2
    yield (
        "streams backwards",
        start
        + b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, good) for stream in (9, 5, 1)),
    )
    yield "window of 0", start + frame(WINDOW, 0, 0, bytes(4))
    yield "window too large", start + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 3
    yield "push promise", start + frame(PUSH, END_HEADERS, 1, bytes(4) + good)
    yield "frame of 16 MB", start + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(100_000)
    yield "unknown frames", start + b"".join(frame(kind, 255, 1, b"x") for kind in range(10, 256))
    yield "bad padding", start + frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + good[:20])
    yield "bad settings", start + frame(SETTINGS, 0, 0, b"12345")
    yield "huge settings", start + frame(SETTINGS, 0, 0, b"\x00\x05\xff\xff\xff\xff" * 100)
    yield "settings of a stream", start + frame(SETTINGS, 0, 3, b"")
    yield "goaway", start + frame(GOAWAY, 0, 0, bytes(8) + b"bye") + call(good, GOOD)
    yield "hpack index 0", start + frame(HEADERS, END_HEADERS, 1, b"\x80")
    yield "hpack index too large", start + frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\x7f")
    yield "hpack table too large", start + frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\x7f")
    yield (
        "hpack length too large",
        start + frame(HEADERS, END_HEADERS, 1, b"\x00\x7f\xff\xff\xff\x7f"),
    )
    # One long header in the table, then thousands of references of one byte
    entry = b"\x40" + _length(b"x") + b"x" + _length(b"y" * 3500) + b"y" * 3500
    yield "hpack bomb", start + frame(HEADERS, END_HEADERS, 1, good + entry + b"\xbe" * 10_000)


def rubbish(seed: int, count: int) -> Iterator[Rubbish]:
    """Yield every wrong call and frame once, then `count` random or mutated ones."""
    known = [*_calls(), *_frames()]
    yield from (Rubbish(kind, content) for kind, content in known)
    rng = random.Random(seed)
    small = [content for _, content in known if len(content) < 20_000]
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: rng.randbytes(rng.randint(0, 500)),
        lambda: PREFACE + rng.randbytes(rng.randint(0, 500)),
        lambda: PREFACE + b"".join(_any_frame(rng) for _ in range(rng.randint(1, 8))),
        lambda: _flipped(rng, call(headers(), message(GOOD))),
        lambda: _flipped(rng, rng.choice(small)),
        lambda: (whole := rng.choice(small))[: rng.randrange(len(whole) + 1)],
    )
    for _ in range(count):
        yield Rubbish("random", rng.choice(makers)())


def _any_frame(rng: random.Random) -> bytes:
    content = rng.choice((rng.randbytes(rng.randint(0, 60)), headers(), message(GOOD)))
    return frame(rng.randrange(12), rng.randrange(256), rng.choice((0, 1, 1, 3, 2**31)), content)


def _flipped(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


async def throw(host: str, port: int, item: Rubbish, wait_s: float) -> str:
    """Send the bytes and hang up after `wait_s`. Returns how it ended: a status or a word."""
    reader, writer = await asyncio.open_connection(host, port)
    received = b""
    try:
        writer.write(item.content)
        async with asyncio.timeout(wait_s):
            await writer.drain()
            while part := await reader.read(65_536):
                received += part
                if _STATUS.search(received):
                    break
            ended = "closed"
    except TimeoutError:
        ended = "silent"
    except OSError:
        ended = "reset"
    finally:
        writer.transport.abort()
    found = _STATUS.search(received)
    return f"status {int(found[1])}" if found else ended


async def throw_all(
    address: str, items: Iterator[Rubbish], at_once: int, wait_s: float
) -> Counter[tuple[str, str]]:
    """Throw all items, `at_once` at the same time. Returns how often what ended how."""
    host, _, port = address.rpartition(":")
    ends: Counter[tuple[str, str]] = Counter()

    async def next_ones() -> None:
        for item in items:
            ends[item.kind, await throw(host, int(port), item, wait_s)] += 1

    await asyncio.gather(*(next_ones() for _ in range(at_once)))
    return ends
