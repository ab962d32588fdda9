"""The bytes of a request: they are counted before they become objects, and then decoded."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from crossbench.errors import InvalidRequest

MessageT = TypeVar("MessageT", bound=Message)

# Decoding so few bytes takes less time than counting their fields
SMALL_BYTES = 65_536
# Fields that a request has beside its pairs or texts: query, model, and those of newer clients
OTHER_FIELDS = 16


def decode(kind: type[MessageT], data: bytes) -> MessageT:
    """Return the message in `data`.

    Raises:
        InvalidRequest: `data` is no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(
            f"the {len(data)} bytes of the request are no valid {kind.DESCRIPTOR.full_name}: send "
            "that message, with texts in UTF-8"
        ) from error


def has_more_fields(data: bytes, most: int) -> bool:
    """Return whether a message has more than `most` fields at its top level.

    A message of 4 MB may have two million empty texts. To count them takes no object per text, and
    ends after `most` fields. Malformed bytes are left to decode().
    """
    position, end, fields = 0, len(data), 0
    while position < end:
        fields += 1
        if fields > most:
            return True
        try:
            tag, position = _varint(data, position)
            match tag & 7:
                case 2:  # bytes, text or a message, after its length
                    length, position = _varint(data, position)
                    position += length
                case 0:
                    _, position = _varint(data, position)
                case 1:  # 64 bits
                    position += 8
                case 5:  # 32 bits
                    position += 4
                case _:  # a group, which no message of ours has
                    return False
        except IndexError:
            return False
    return False


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at `position` and the position after it (protobuf's encoding, base 128)."""
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    shift = 7
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError
