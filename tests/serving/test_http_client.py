"""The client of other people's servers, against a real HTTP server that answers well or badly."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from aiohttp import web

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Message, Reply, Vectors
from crossbench.serving.http_apis import APIS
from crossbench.serving.http_client import HttpClient, HttpSettings
from tests.helpers.bad_servers import free_port
from tests.helpers.certificates import Authority
from tests.helpers.http_servers import TOKEN, Rerankers, overlap, rerankers

QUERY, TEXTS = "a giant panda", ["hi", "a bear", "a giant panda eats", "panda panda"]
Status = grpc.StatusCode


def settings(url: str, api: str = "tei", **changes: Any) -> HttpSettings:
    values: dict[str, Any] = {
        "path": None, "model": None, "body": {}, "token": None, "ca": None,
        "max_connections": 100, "max_reply_bytes": 1 << 20,
    }  # fmt: skip
    return HttpSettings(url, api, **{**values, **changes})


def score_request() -> pb.ScoreRequest:
    return pb.ScoreRequest(query=QUERY, passages=TEXTS)


def sent(settings: HttpSettings, *messages: Message, timeout_s: float = 20) -> list[Any]:
    """Send requests one after the other, over one client."""

    async def run() -> list[Reply | Vectors]:
        async with HttpClient(settings) as client:
            return [await client.send(message, timeout_s) for message in messages]

    return asyncio.run(run())


def failure(settings: HttpSettings, timeout_s: float = 20) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        sent(settings, score_request(), timeout_s=timeout_s)
    return failed.value.code(), failed.value.details() or ""


@pytest.fixture(scope="module")
def good() -> Iterator[Rerankers]:
    with rerankers() as server:
        yield server


@pytest.fixture
def bad() -> Iterator[Rerankers]:
    """A server whose `answer` a test sets."""
    with rerankers() as server:
        yield server


@pytest.mark.parametrize("api", [name for name in APIS if name != "openai_embeddings"])
def test_every_api_gives_the_scores_in_the_order_of_the_texts(api: str, good: Rerankers) -> None:
    good.requests.clear()
    (reply,) = sent(settings(good.url, api, model="mine"), score_request())
    assert reply.scores == pytest.approx(overlap(QUERY, TEXTS))
    assert reply.scores.dtype == np.float32
    assert reply.tokens is reply.truncated is None
    ((path, _, body),) = good.requests
    assert path == APIS[api].path
    assert body["model"] == "mine"


def test_pairs_of_several_queries_are_one_request(good: Rerankers) -> None:
    pairs = [pb.Pair(query="a panda", passage="panda"), pb.Pair(query="no", passage="no no")]
    (reply,) = sent(settings(good.url, "vllm_score"), pb.ScorePairsRequest(pairs=pairs))
    assert reply.scores == pytest.approx(overlap("a panda", ["panda"]) + overlap("no", ["no no"]))


def test_embeddings_and_scores_from_them(good: Rerankers) -> None:
    embeddings = settings(good.url, "openai_embeddings")
    vectors, scores = sent(embeddings, pb.EmbedRequest(texts=TEXTS), score_request())
    assert vectors.vectors.tolist() == [[len(text), text.count("e"), 1] for text in TEXTS]
    assert scores.scores.shape == (4,)
    assert (np.abs(scores.scores) <= 1).all()


def test_one_connection_is_kept_and_limited(good: Rerankers) -> None:
    good.connections.clear()
    sent(settings(good.url), *[score_request() for _ in range(5)])
    assert len(good.connections) == 1

    async def at_once() -> None:
        async with HttpClient(settings(good.url, max_connections=2)) as client:
            await asyncio.gather(*(client.send(score_request(), 20) for _ in range(20)))

    good.connections.clear()
    asyncio.run(at_once())
    assert 1 <= len(good.connections) <= 2


def test_path_body_and_token(good: Rerankers) -> None:
    good.requests.clear()
    other = settings(good.url, "cohere", path="/v1/rerank", body={"max_chunks_per_doc": 1})
    sent(other, score_request())
    ((path, _, body),) = good.requests
    assert (path, body["max_chunks_per_doc"]) == ("/v1/rerank", 1)
    with rerankers(token=TOKEN) as server:
        assert sent(settings(server.url, token=TOKEN), score_request())
        status, told = failure(settings(server.url))
        assert status is Status.UNAUTHENTICATED
        assert "HTTP 401" in told
        assert "target.token_file=FILE" in told


def answer_of(
    status: int, body: str, content_type: str = "application/json", **headers: str
) -> Any:
    def answer(request: web.Request, _: Any) -> web.Response:
        return web.Response(status=status, text=body, content_type=content_type, headers=headers)

    return answer


def results(*scores: Any) -> str:
    return json.dumps([{"index": index, "score": score} for index, score in enumerate(scores)])


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (answer_of(200, "<html>Log in!</html>", "text/html"), Status.INTERNAL,
         "answered with text/html; charset=utf-8 instead of JSON (<html>Log in!</html>): "
         "look whether target.url is the server that you mean"),
        (answer_of(200, results(1, 2)), Status.INTERNAL, "2 of 4 results are missing"),
        (answer_of(200, results(1, 2, "3", 4)), Status.INTERNAL, "the score of index 2 is '3'"),
        (answer_of(200, results(1, 2, float("nan"), 4)), Status.DATA_LOSS, "NaN or infinite"),
        (answer_of(200, "[" * 100_000), Status.INTERNAL, "instead of JSON"),
        (answer_of(307, "", Location="/elsewhere"), Status.FAILED_PRECONDITION,
         "HTTP 307 Temporary Redirect: the server redirects /rerank to /elsewhere, which is not"),
        (answer_of(429, '{"error":"overloaded"}'), Status.RESOURCE_EXHAUSTED,
         'HTTP 429 Too Many Requests: {"error":"overloaded"}'),
        (answer_of(422, "no texts"), Status.INVALID_ARGUMENT, "HTTP 422"),
        (answer_of(503, ""), Status.UNAVAILABLE, "HTTP 503 Service Unavailable: an empty reply"),
        (answer_of(500, "x" * 100_000), Status.INTERNAL, "HTTP 500 Internal Server Error: xxx"),
    ],
)  # fmt: skip
def test_a_bad_reply_is_told(answer: Any, status: Status, told: str, bad: Rerankers) -> None:
    bad.answer = answer
    found, message = failure(settings(bad.url))
    assert found is status
    assert told in message
    assert len(message) < 400
    assert len(bad.requests) == 1  # it was not sent again


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        ("/x", "give target.url={url} target.path=/x"),
        ("https://h:1/rerank", "give target.url=https://h:1 target.path=/rerank"),
        ("https://[h", "give the server's address as target.url"),
    ],
)
def test_a_redirect_says_what_to_give(place: str, advice: str, bad: Rerankers) -> None:
    bad.answer = answer_of(308, "", Location=place)
    _, told = failure(settings(bad.url))
    assert told.endswith(
        f"redirects /rerank to {place}, which is not followed: {advice.format(url=bad.url)}"
    )


def test_a_wrong_path_is_told(good: Rerankers) -> None:
    status, told = failure(settings(good.url, path="/v3/rerank"))
    assert status is Status.UNIMPLEMENTED
    assert "HTTP 404 Not Found" in told
    assert "There is no /v3/rerank: give the target.api that the server has" in told


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "in chunks"])
def test_a_reply_of_a_gigabyte_is_not_read(declared: bool, bad: Rerankers) -> None:
    received = 0

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        nonlocal received
        response = web.StreamResponse()
        if declared:
            response.content_length = 1 << 30
        await response.prepare(request)
        for _ in range(1024):
            await response.write(b" " * (1 << 20))
            received += 1
        return response

    bad.answer = answer
    tracemalloc.start()
    status, told = failure(settings(bad.url))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status is Status.INTERNAL
    assert "the reply has more than 1,048,576 bytes" in told
    assert peak < 50e6
    assert received < 100


def test_a_server_that_hangs(bad: Rerankers) -> None:
    async def answer(request: web.Request, _: Any) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    bad.answer = answer
    assert failure(settings(bad.url), timeout_s=0.3) == (
        Status.DEADLINE_EXCEEDED, "no reply within 0.3 s"
    )  # fmt: skip


def test_a_server_that_breaks_off(bad: Rerankers) -> None:
    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"[")
        assert request.transport is not None
        request.transport.abort()
        return response

    bad.answer = answer
    status, told = failure(settings(bad.url))
    assert status is Status.UNAVAILABLE
    assert "the connection broke" in told
    assert len(bad.requests) == 1


def test_nobody_listens() -> None:
    status, told = failure(settings(f"http://127.0.0.1:{free_port()}"))
    assert status is Status.UNAVAILABLE
    assert "no connection" in told
    assert "refused" in told


def test_a_server_that_never_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert failure(settings(url), timeout_s=0.3)[0] is Status.DEADLINE_EXCEEDED


def test_certificates(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    pair = authority.issue("server", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    with rerankers(tls=context) as server:
        named = server.url.replace("127.0.0.1", "localhost")
        assert sent(settings(named, ca=authority.pem), score_request())
        for refused, reason, advice in (
            (settings(named), "local issuer", "give target.ca=FILE with the authority that"),
            (settings(named, ca=stranger.pem), "local issuer", f"not {stranger.pem}"),
            (settings(server.url, ca=authority.pem), "not valid for '127.0.0.1'", "target.url"),
        ):
            status, told = failure(refused)
            assert status is Status.UNAVAILABLE
            assert "the server's certificate is refused (" in told
            assert reason in told
            assert advice in told
        status, told = failure(settings(named.replace("https", "http")))
        assert status is not Status.OK


def test_plain_http_behind_https(good: Rerankers) -> None:
    status, told = failure(settings(good.url.replace("http", "https")))
    assert status is Status.UNAVAILABLE
    assert told.startswith("no TLS connection (")
    assert told.endswith("): if it has no TLS, give http:// in target.url")
    assert "permitted" not in told
