"""A small HTTP server that speaks every API of `http_apis` over a scorer, or answers badly."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from tests.helpers.serving import pytorch

Scorer = Callable[[str, Sequence[str]], list[float]]
Answer = Callable[[web.Request, Any], web.StreamResponse]
TOKEN = "a-token-for-tests"


def overlap(query: str, texts: Sequence[str]) -> list[float]:
    """Score each text by the share of its words that are in the query, as a logit."""
    words = {*query.lower().split()}
    shares = [sum(word in words for word in text.lower().split()) for text in texts]
    return [share / 7 - len(text) / 1e4 for share, text in zip(shares, texts, strict=True)]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def scorer_of(model: ModelFolder, cache_dir: Path) -> Scorer:
    """Score with the model itself: the logits of transformers' forward."""
    tokenizer, backend = PairTokenizer(model), pytorch(model, cache_dir)

    @functools.cache
    def scores(query: str, texts: tuple[str, ...]) -> list[float]:
        return backend.infer(tokenizer.encode_query(query, texts).batch).values.tolist()

    return lambda query, texts: scores(query, tuple(texts))


@dataclass
class Rerankers:
    """The running server. `requests` has the path, headers and JSON of every request.

    `answer` replaces the reply of every API if it is set, `token` is required if it is set.
    """

    url: str
    scorer: Scorer
    answer: Answer | None = None
    token: str | None = None
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


SERVER = web.AppKey("server", Rerankers)


def _reply(path: str, body: Any, scorer: Scorer) -> Any:
    """Return the reply of an API, sorted by descending score where the API sorts."""
    if path == "/v1/embeddings":
        vectors = [[float(len(text)), float(text.count("e")), 1.0] for text in body["input"]]
        data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        return {"object": "list", "data": data[::-1]}
    if path == "/score":
        first, second = body["text_1"], body["text_2"]
        if isinstance(first, str):
            scores = scorer(first, second)
        else:
            pairs = zip(first, second, strict=True)
            scores = [scorer(query, [text])[0] for query, text in pairs]
        return {"data": [{"index": i, "object": "score", "score": s} for i, s in enumerate(scores)]}
    if path == "/v1/ranking":
        scores = scorer(body["query"]["text"], [entry["text"] for entry in body["passages"]])
        key, listed = "logit", "rankings"
    elif "texts" in body:
        scores = scorer(body["query"], body["texts"])
        key, listed = "score", ""
    else:
        scores = scorer(body["query"], body["documents"])
        key, listed = "relevance_score", "results"
    results = [{"index": i, key: score} for i, score in enumerate(scores)]
    results.sort(key=lambda result: -result[key])
    results = results[: body.get("top_n") or len(results)]
    return {listed: results, "id": "1"} if listed else results


async def _metrics(request: web.Request) -> web.Response:
    server = request.app[SERVER]
    count = len(server.requests)
    text = (
        "# TYPE queue_size gauge\nqueue_size 3\n"
        f'# TYPE requests_total counter\nrequests_total{{path="/rerank"}} {count}\n'
        "# TYPE batch_size histogram\n"
        f'batch_size_bucket{{le="+Inf"}} {count}\n'
        f"batch_size_sum {8 * count}\nbatch_size_count {count}\n"
    )
    return web.Response(text=text, content_type="text/plain")


async def _handle(request: web.Request) -> web.StreamResponse:
    server: Rerankers = request.app[SERVER]
    body = await request.json()
    server.requests.append((request.path, dict(request.headers), body))
    assert request.transport is not None
    server.connections.add(id(request.transport))
    if server.token and request.headers.get("Authorization") != f"Bearer {server.token}":
        return web.json_response({"error": "no token"}, status=401)
    if server.answer is not None:
        answer = server.answer(request, body)
        return await answer if asyncio.iscoroutine(answer) else answer
    return web.Response(
        text=json.dumps(_reply(request.path, body, server.scorer)), content_type="application/json"
    )


@contextlib.contextmanager
def rerankers(
    scorer: Scorer = overlap,
    answer: Answer | None = None,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Rerankers]:
    """Run the server in a thread of this process, on a free port of 127.0.0.1."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, Rerankers]:
        app = web.Application(client_max_size=1 << 26)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        server = app[SERVER] = Rerankers("", scorer, answer, token)
        for path in (
            "/rerank",
            "/v1/rerank",
            "/v2/rerank",
            "/score",
            "/v1/ranking",
            "/v1/embeddings",
        ):
            app.router.add_post(path, _handle)
        app.router.add_get("/metrics", _metrics)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        return runner, server

    runner, server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
