"""The inputs of the fuzzer: calls with right, odd and wrong messages, drawn from a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import grpc

from tests.helpers import wire
from tests.helpers.odd_texts import EMPTY, INVALID, VALID
from tests.helpers.wire import Wire, tag, text_field, varint

SERVICE = "/crossbench.v1.Inference/"
TEXT_METHODS = ("Score", "ScorePairs", "Embed")
METHODS = (*TEXT_METHODS, "GetInfo", "GetMetrics", "WatchMetrics", "ResetMetrics")
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Case:
    """One call. `bodies` are its messages: one, except for a wrong kind of call.

    `drop_after_s` cancels the call; `timeout_s` is its deadline. A stream is read for `replies`
    messages and then dropped.
    """

    kind: str
    path: str
    bodies: tuple[bytes, ...]
    metadata: Metadata = ()
    timeout_s: float | None = None
    drop_after_s: float | None = None
    compression: grpc.Compression = grpc.Compression.NoCompression
    replies: int | None = None


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yield `count` calls; equal seeds give equal calls."""
    rng = random.Random(seed)
    makers, weights = zip(*MAKERS, strict=True)
    for _ in range(count):
        yield rng.choices(makers, weights)[0](rng)


def _encoded(rng: random.Random) -> bytes:
    """Return a text: mostly a plain one, sometimes odd, empty or not UTF-8."""
    kind = rng.random()
    if kind < 0.5:
        words = ("river", "water", "Café", "runs", "10", "x", "naïve", "?")
        return " ".join(rng.choices(words, k=rng.randint(1, 12))).encode()
    if kind < 0.85:
        return rng.choice(VALID).encode()
    return rng.choice(EMPTY).encode() if kind < 0.92 else rng.choice(INVALID)


def _message(rng: random.Random, method: str) -> bytes:
    """Return a message of the right form, whose texts may be odd."""
    model = rng.choice((None,) * 12 + (b"", b"no-such-model", b"\xff", "モデル".encode()))
    count = rng.choice((0, 1, 1, 2, 3, 8))
    if method == "Score":
        return wire.score_request(_encoded(rng), [_encoded(rng) for _ in range(count)], model)
    if method == "ScorePairs":
        return wire.pairs_request([(_encoded(rng), _encoded(rng)) for _ in range(count)], model)
    if method == "Embed":
        return wire.embed_request([_encoded(rng) for _ in range(count)], model)
    if method == "WatchMetrics":
        odd = (0.0, 0.05, 1.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), -0.0, 3601.0)
        return tag(1, Wire.FIXED64) + struct.pack("<d", rng.choice(odd))
    return b""


def _text_method(rng: random.Random) -> str:
    return rng.choices(TEXT_METHODS, (5, 4, 1))[0]


def _case(rng: random.Random, kind: str, method: str, body: bytes) -> Case:
    replies = rng.choice((0, 0, 1, 2)) if method == "WatchMetrics" else None
    return Case(kind, SERVICE + method, (body,), replies=replies)


def _odd_texts(rng: random.Random) -> Case:
    method = _text_method(rng)
    return _case(rng, "odd texts", method, _message(rng, method))


def _random_bytes(rng: random.Random) -> Case:
    size = int(rng.expovariate(1 / 60))
    return _case(rng, "random bytes", rng.choice(METHODS), rng.randbytes(size))


def _mutated(rng: random.Random) -> Case:
    method = rng.choice((*TEXT_METHODS, *METHODS))
    body = bytearray(_message(rng, method))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body) + 1)
        action = rng.randrange(5)
        if action == 0 and at < len(body):
            body[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            body[at:at] = rng.randbytes(rng.randint(1, 5))
        elif action == 2:
            del body[at : at + rng.randint(1, 6)]
        elif action == 3:
            body[at:at] = body[rng.randrange(len(body) + 1) :][:300]
        else:
            body[at:] = _message(rng, rng.choice(METHODS))
    return _case(rng, "mutated", method, bytes(body))


def _truncated(rng: random.Random) -> Case:
    method = rng.choice((*TEXT_METHODS, "WatchMetrics"))
    body = _message(rng, method)
    return _case(rng, "truncated", method, body[: rng.randrange(len(body) + 1)])


def _fields(rng: random.Random) -> Case:
    """Fields with any number and wire type: unknown ones, known ones of a wrong type."""
    parts = []
    for _ in range(rng.randint(1, 6)):
        number = rng.choice((0, 1, 1, 2, 2, 3, 4, 15, 16, 100, 19_000, 2**29 - 1, 2**29, 2**60))
        kind = rng.randrange(8)
        contents = {
            Wire.VARINT: varint(rng.choice((0, 1, 2**31, 2**63, -1))),
            Wire.FIXED64: rng.randbytes(8),
            Wire.FIXED32: rng.randbytes(4),
            Wire.BYTES: varint(5) + b"bytes",
        }
        parts.append(tag(number, kind) + contents.get(kind, b""))
    body = b"".join(parts)
    method = rng.choice(METHODS)
    good = _message(rng, method)
    return _case(rng, "fields", method, rng.choice((body, body + good, good + body)))


def _repeated_scalar(rng: random.Random) -> Case:
    """A field that is not repeated, given many times: the last one counts."""
    body = b"".join(text_field(1, _encoded(rng)) for _ in range(rng.choice((2, 50))))
    models = text_field(3, b"no-such-model") * rng.choice((0, 3))
    return _case(rng, "repeated scalar", "Score", body + text_field(2, b"water") + models)


def _lying_lengths(rng: random.Random) -> Case:
    """A length that the message does not have, or a number that does not end."""
    lies = (6, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
    liar = tag(rng.choice((1, 2)), Wire.BYTES) + varint(rng.choice(lies)) + b"short"
    endless = tag(1, Wire.VARINT) + b"\xff" * rng.choice((5, 9, 10, 11, 40))
    body = rng.choice((liar, endless, text_field(1, b"q") + liar, text_field(2, liar)))
    return _case(rng, "lying lengths", _text_method(rng), body)


def _nesting(rng: random.Random) -> Case:
    depth = rng.choice((1, 10, 99, 100, 101, 1000, 50_000))
    body = wire.nested_groups(depth, closed=rng.random() < 0.6)
    method = rng.choice(METHODS)
    inside = text_field(1, body) if rng.random() < 0.5 else body
    return _case(rng, "deep nesting", method, _message(rng, method) + inside)


def _unknown_method(rng: random.Random) -> Case:
    paths = (
        SERVICE + "Nope", SERVICE, SERVICE + "score", SERVICE + "Score/", "/Score", "/", "//",
        "/x/y", "/" + "x" * 5000 + "/y", "/crossbench.v1.Inference/Score?x=1", "/../Score",
        "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Nope",
    )  # fmt: skip
    return Case("other methods", rng.choice(paths), (rng.randbytes(rng.randint(0, 40)),))


def _metadata(rng: random.Random) -> Case:
    some: tuple[Metadata, ...] = (
        (("x-bin", rng.randbytes(rng.choice((0, 1, 100, 5000)))),),
        (("x-bin", b"\x00\xff\r\n"), ("x-bin", b"again")),
        (("x-huge", "h" * rng.choice((1000, 7000, 9000, 20_000, 100_000))),),
        tuple((f"x-{number}", "v") for number in range(rng.choice((10, 200, 2000)))),
        (("authorization", "Bearer " + "t" * 100), ("cookie", "a=b"), ("x-forwarded-for", "::1")),
        (("grpc-trace-bin", rng.randbytes(17)), ("grpc-tags-bin", rng.randbytes(40))),
        (("x-empty", ""), ("x.dots_and-dashes", " spaces  "), ("x", "~!@#$%^&*()")),
        (("grpc-previous-rpc-attempts", "99999"), ("grpc-accept-encoding", "br,zstd,??")),
        (("lb-token", "x"), ("te", "gzip"), ("host", "elsewhere"), ("connection", "close")),
    )
    method = rng.choice(METHODS)
    case = _case(rng, "metadata", method, _message(rng, method))
    return replace(case, metadata=rng.choice(some))


def _deadlines(rng: random.Random) -> Case:
    method = rng.choice(METHODS)
    case = _case(rng, "deadlines", method, _message(rng, method))
    return replace(case, timeout_s=rng.choice((-1.0, 0.0, 1e-9, 1e-4, 1e-3, 3e-3, 1e-2, 1e9)))


def _cancelled(rng: random.Random) -> Case:
    method = rng.choice((*TEXT_METHODS, "WatchMetrics"))
    case = _case(rng, "cancelled", method, _message(rng, method))
    return replace(case, drop_after_s=rng.choice((0.0, 0.0, rng.uniform(0, 0.02))))


def _compressed(rng: random.Random) -> Case:
    method = _text_method(rng)
    body = _message(rng, method)
    if rng.random() < 0.04:  # 8 MB of zeros, compressed to 8 kB
        body = text_field(1, b"q") + text_field(2, bytes(8_000_000))
    compression = rng.choice((grpc.Compression.Gzip, grpc.Compression.Deflate))
    return replace(_case(rng, "compressed", method, body), compression=compression)


def _wrong_calls(rng: random.Random) -> Case:
    """A unary method called as a stream: no message, or several."""
    method = rng.choice(METHODS)
    count = rng.choice((0, 0, 2, 5))
    bodies = tuple(_message(rng, method) for _ in range(count))
    return Case("wrong calls", SERVICE + method, bodies, timeout_s=0.5, replies=1)


def _large(rng: random.Random) -> Case:
    """Up to 10 MB: each takes the machine some milliseconds at least, so they are rare."""
    makers: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("Score", lambda: wire.score_request(b"q", [b"x" * 1_000_000])),
        ("Score", lambda: wire.score_request(b"." * 300_000, [b"water"])),
        ("Score", lambda: wire.score_request(b"q", [b"long word " * 30_000])),
        ("Score", lambda: wire.score_request(b"q", ["水".encode() * 100_000])),
        ("Score", lambda: wire.score_request(b"q", [b"x " * 5_000_000])),
        ("Score", lambda: wire.score_request(b"q", [b"\xff" * 3_000_000])),
        ("Score", lambda: text_field(1, b"q") + text_field(2, b"p") * 100_000),
        ("Score", lambda: text_field(1, b"q") + text_field(2, b"") * 100_000),
        ("Score", lambda: text_field(1, b"q" * 100) * 20_000 + text_field(2, b"p")),
        ("ScorePairs", lambda: text_field(1, b"") * 1_000_000),
        ("ScorePairs", lambda: wire.pairs_request([(b"q", b"p")]) * 100_000),
        ("ScorePairs", lambda: wire.pairs_request([(b"q" * 1_000_000, b"p")])),
        ("Embed", lambda: text_field(1, b"") * 1_000_000),
        ("Embed", lambda: wire.embed_request([b"x" * 10_000_000])),
        ("GetInfo", lambda: text_field(77, bytes(3_000_000))),
        ("GetMetrics", lambda: (tag(88, Wire.VARINT) + b"\x01") * 300_000),
        ("WatchMetrics", lambda: text_field(77, bytes(70_000_000))),
    )
    method, make = rng.choice(makers)
    return _case(rng, "large", method, make())


MAKERS: tuple[tuple[Callable[[random.Random], Case], float], ...] = (
    (_odd_texts, 16.0),
    (_random_bytes, 14.0),
    (_mutated, 22.0),
    (_truncated, 10.0),
    (_fields, 12.0),
    (_repeated_scalar, 3.0),
    (_lying_lengths, 6.0),
    (_nesting, 2.0),
    (_unknown_method, 3.0),
    (_metadata, 5.0),
    (_deadlines, 4.0),
    (_cancelled, 4.0),
    (_compressed, 3.0),
    (_wrong_calls, 2.0),
    (_large, 0.06),
)
