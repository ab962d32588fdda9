"""Strangers' bytes on the HTTP port: no 500, no hang, no error in the log, no harm to others."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossbench.models.folder import ModelFolder
from crossbench.serving.http.app import FORMS
from crossbench.serving.http.settings import HttpSettings
from tests.helpers.http import Both, both, request_bytes
from tests.helpers.odd_texts import EMPTY, VALID
from tests.helpers.serving import noop

NAMES = (
    "query", "texts", "documents", "inputs", "input", "text_1", "text_2", "queries", "model",
    "top_n", "raw_scores", "truncate", "return_text", "return_documents", "normalize",
    "encoding_format", "dimensions", "use_activation", "rank_fields", "truncation_direction", "x",
)  # fmt: skip
TEXTS = st.sampled_from((*VALID, *EMPTY, "a river", "q")) | st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
LISTS = st.lists(TEXTS, max_size=5)
FIELDS = st.dictionaries(st.sampled_from(NAMES), VALUES | LISTS, max_size=5)
# Fields that belong together, with anything beside them
RIGHT = st.one_of(
    st.fixed_dictionaries({"query": TEXTS, "texts": LISTS, "documents": LISTS}),
    st.fixed_dictionaries({"text_1": TEXTS, "text_2": LISTS}),
    st.fixed_dictionaries({"queries": LISTS, "documents": LISTS}),
    st.fixed_dictionaries({"input": TEXTS | LISTS, "inputs": TEXTS | LISTS}),
)
BODIES = st.one_of(
    RIGHT.map(lambda fields: json.dumps(fields).encode()),
    st.builds(lambda first, second: json.dumps({**second, **first}).encode(), RIGHT, FIELDS),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
)
ALLOWED = {200, 400, 404, 413, 424}


@pytest.mark.parametrize("cases", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_body_gives_500(seeded_model: ModelFolder, cases: int) -> None:
    drawn: list[tuple[str, bytes]] = []

    @settings(max_examples=cases, database=None, deadline=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(sorted(FORMS)), BODIES)
    def draw(path: str, body: bytes) -> None:
        drawn.append((path, body))

    draw()

    async def run() -> None:
        async with both([noop(seeded_model)]) as served:
            headers = {"content-type": "application/json"}
            seen: set[int] = set()
            for path, body in drawn:
                reply = await served.http.post(path, content=body, headers=headers)
                assert reply.status_code in ALLOWED, (path, body, reply.text)
                assert reply.json() is not None
                seen.add(reply.status_code)
            assert {200, 400} <= seen

    asyncio.run(run())


@pytest.mark.parametrize("cases", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_bytes_that_are_no_request_hurt_nobody(
    seeded_model: ModelFolder, cases: int, caplog: pytest.LogCaptureFixture
) -> None:
    good = request_bytes("/rerank", b'{"query": "q", "texts": ["a b", "c"]}')
    rng = random.Random(5)

    async def run() -> None:
        async with both([noop(seeded_model)], http=HttpSettings(0, 0.3)) as served:
            expected = await served.json("/rerank", query="q", texts=["a b", "c"])
            limit = asyncio.Semaphore(32)

            async def one(data: bytes) -> None:
                async with limit:
                    told = await exchange(served, data)
                    status = told[9:12]
                    assert not status.startswith(b"5") or status == b"504", (data, told)

            await asyncio.gather(*(one(changed(rng, good)) for _ in range(cases)))
            assert await served.json("/rerank", query="q", texts=["a b", "c"]) == expected
            assert not (await served.grpc.metrics()).requests_in_flight

    with caplog.at_level("WARNING"):
        asyncio.run(run())
    assert not caplog.records


async def exchange(served: Both, data: bytes) -> bytes:
    """Send bytes on a connection of their own, and return the answer, until it is closed."""
    host, port = served.server.http_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    told = b""
    try:
        writer.write(data)
        writer.write_eof()
        told = await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        pass
    finally:
        writer.close()
    return told


def changed(rng: random.Random, data: bytes) -> bytes:
    """Return a request with some bytes changed, inserted, removed, doubled or cut off."""
    lines = (
        b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n", b"upgrade: websocket\r\n",
        b"connection: upgrade\r\n", b"expect: 100-continue\r\n", b"content-length: -1\r\n",
        b"x-request-timeout-ms: 0.001\r\n", b"content-encoding: gzip\r\n", b" folded\r\n",
    )  # fmt: skip
    body: Any = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(7):
            case 0 if at < len(body):
                body[at] ^= 1 << rng.randrange(8)
            case 1:
                body[at:at] = rng.randbytes(rng.randint(1, 5))
            case 2:
                del body[at : at + rng.randint(1, 20)]
            case 3:
                body[at:at] = body[:300]
            case 4:
                del body[at:]
            case 5:
                first = body.find(b"\r\n") + 2
                body[first:first] = rng.choice(lines)
            case _:
                body += data * rng.randint(1, 12)
    return bytes(body)
