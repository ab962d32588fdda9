"""Protobuf messages as bytes, written by hand, so that a test can write wrong ones."""

from __future__ import annotations

from enum import IntEnum


class Wire(IntEnum):
    """The wire types of protobuf; 6 and 7 do not exist."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    GROUP = 3
    END_GROUP = 4
    FIXED32 = 5


def varint(number: int) -> bytes:
    """Encode a number of up to 64 bits."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def text_field(field: int, content: bytes) -> bytes:
    return tag(field, Wire.BYTES) + varint(len(content)) + content


def score_request(query: bytes, passages: list[bytes], model: bytes | None = None) -> bytes:
    """Return a ScoreRequest whose texts need not be UTF-8."""
    parts = [text_field(1, query), *(text_field(2, passage) for passage in passages)]
    return b"".join([*parts, *([] if model is None else [text_field(3, model)])])


def pairs_request(pairs: list[tuple[bytes, bytes]], model: bytes | None = None) -> bytes:
    parts = [text_field(1, text_field(1, query) + text_field(2, text)) for query, text in pairs]
    return b"".join([*parts, *([] if model is None else [text_field(2, model)])])


def embed_request(texts: list[bytes], model: bytes | None = None) -> bytes:
    parts = [text_field(1, text) for text in texts]
    return b"".join([*parts, *([] if model is None else [text_field(2, model)])])


def nested_groups(depth: int, closed: bool) -> bytes:
    """Return groups inside groups, of a field that no message has."""
    return tag(9, Wire.GROUP) * depth + tag(9, Wire.END_GROUP) * (depth if closed else 0)
