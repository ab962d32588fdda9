"""Requests as bytes: the number of their fields, and bytes that are no request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbench.errors import InvalidRequest
from crossbench.models.folder import ModelFolder
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import InferenceClient
from crossbench.serving.wire import decode, has_more_fields
from tests.helpers.serving import noop, serving

SERVICE = "/crossbench.v1.Inference"
NUMBERS = st.integers(16, 2**29 - 1)  # of fields that our messages do not have


def _field(wire_type: int) -> Callable[[int, bytes], bytes]:
    return lambda number, data: _varint(number << 3 | wire_type) + data


def _with_length(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


UNKNOWN = st.one_of(
    st.builds(_field(0), NUMBERS, st.integers(0, 2**64 - 1).map(_varint)),
    st.builds(_field(1), NUMBERS, st.binary(min_size=8, max_size=8)),
    st.builds(_field(2), NUMBERS, st.binary(max_size=300).map(_with_length)),
    st.builds(_field(5), NUMBERS, st.binary(min_size=4, max_size=4)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=200), max_size=12), st.lists(UNKNOWN, max_size=12))
def test_the_fields_of_a_message_are_counted(passages: list[str], unknown: list[bytes]) -> None:
    data = pb.ScoreRequest(query="q", passages=passages).SerializeToString() + b"".join(unknown)
    fields = 1 + len(passages) + len(unknown)
    assert decode(pb.ScoreRequest, data).query == "q"  # protobuf accepts it
    assert has_more_fields(data, fields - 1)
    assert not has_more_fields(data, fields)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_counted_or_refused(data: bytes) -> None:
    has_more_fields(data, 3)
    with contextlib.suppress(InvalidRequest):
        decode(pb.ScorePairsRequest, data)


@pytest.mark.parametrize(
    "method", ["Score", "ScorePairs", "Embed", "GetInfo", "GetMetrics", "ResetMetrics"]
)
def test_bytes_that_are_no_message_are_an_invalid_argument(
    seeded_model: ModelFolder, method: str
) -> None:
    async def run() -> None:
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.unary_unary(f"{SERVICE}/{method}")
                for data in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0b"):
                    if method.startswith(("Get", "Reset")) and data[0] == 0x0A:
                        continue  # an unknown field, which may have any bytes
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call(data)
                    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                    assert "are no valid" in (caught.value.details() or "")
            assert len((await client.score("still", ["alive"])).scores) == 1

    asyncio.run(run())


def test_millions_of_empty_texts_are_refused_without_reading_them(
    seeded_model: ModelFolder,
) -> None:
    """Decoding would make an object for each; the message then had their exact number."""

    async def run() -> None:
        limits = {"max_pairs": 1024, "max_request_bytes": 4_194_304}
        async with (
            serving([noop(seeded_model)], **limits) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            for method, field, what in (
                ("ScorePairs", b"\x0a\x00", "pairs"),
                ("Score", b"\x12\x00", "passages"),
                ("Embed", b"\x0a\x00", "texts"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(f"{SERVICE}/{method}")(field * 2_000_000)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert f"contains more than 1024 {what}" in (caught.value.details() or "")

    asyncio.run(run())
