"""The clients for programs: rerank passages or embed texts with a crossbench server.

from crossbench import Client

with Client("127.0.0.1:50051") as client:
    for found in client.rerank("what is a river", passages)[:3]:
        print(found.score, passages[found.index])
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np

from crossbench.errors import RequestFailed
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.access import ClientAccess
from crossbench.serving.client import InferenceClient, error_message
from crossbench.types import Float32Array

T = TypeVar("T")
_PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Ranked:
    """A passage of a request: its index there, and its score."""

    index: int
    score: float


class AsyncClient:
    """A connection to a crossbench server, to be used on one event loop.

    `model` chooses one of the server's models (None: its default). A request that has no answer
    within `timeout_s` (None: no limit) fails; a busy server refuses it at once if it cannot be
    answered in time. `ca`, `cert`, `key` and `token_file` are files: the authorities to trust in
    PEM (or `public`), the client's own certificate and key for mutual TLS, and the server's token.
    `server_name` is the name in the server's certificate if `address` has another one.

    Raises:
        ConfigError: `address` is not HOST:PORT, or a file cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        server_name: str | None = None,
        token_file: str | None = None,
    ) -> None:
        access = ClientAccess(ca, cert, key, server_name, token_file)
        self._client = InferenceClient(address, access)
        self._model, self._timeout_s = model, timeout_s

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def score(self, query: str, passages: Sequence[str]) -> Float32Array:
        """Return the score of each passage, float32 (n,), in their order.

        Raises:
            RequestFailed: the server refused the request, failed, or did not answer in time.
        """
        message = pb.ScoreRequest(query=query, passages=passages, model=self._model)
        return (await _failing(self._client.send_score(message, self._timeout_s))).scores

    async def rerank(
        self, query: str, passages: Sequence[str], top_n: int | None = None
    ) -> list[Ranked]:
        """Return the `top_n` best passages (None: all), best first. Raises as score() does."""
        scores = await self.score(query, passages)
        order = np.argsort(-scores, kind="stable")[:top_n]
        return [Ranked(int(index), float(scores[index])) for index in order]

    async def embed(self, texts: Sequence[str]) -> Float32Array:
        """Return a vector for each text, float32 (n, dim). Raises as score() does."""
        message = pb.EmbedRequest(texts=texts, model=self._model)
        reply = await _failing(self._client.send(message, self._timeout_s))
        return reply.vectors  # type: ignore[union-attr]  # of an EmbedRequest


class Client:
    """The same without asyncio: for scripts, threads and notebooks. See AsyncClient.

    It may be used from several threads at once.
    """

    def __init__(self, address: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()
        try:
            self._client = self._wait(_opened(address, options))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._wait(self._client.close())
            self._stop()

    def score(self, query: str, passages: Sequence[str]) -> Float32Array:
        """Return the score of each passage. See AsyncClient.score."""
        return self._wait(self._client.score(query, passages))

    def rerank(self, query: str, passages: Sequence[str], top_n: int | None = None) -> list[Ranked]:
        """Return the best passages, best first. See AsyncClient.rerank."""
        return self._wait(self._client.rerank(query, passages, top_n))

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """Return a vector for each text. See AsyncClient.embed."""
        return self._wait(self._client.embed(texts))

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:  # KeyboardInterrupt too: nobody waits for the reply any more
            future.cancel()
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _opened(address: str, options: dict[str, Any]) -> AsyncClient:
    """Return a client on the running event loop."""
    return AsyncClient(address, **options)


async def _failing(call: Coroutine[Any, Any, T]) -> T:
    """Await a call; raise RequestFailed for an error of gRPC."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        pushback = dict(error.trailing_metadata() or ()).get(_PUSHBACK)
        retry_after_s = None if pushback is None else int(pushback) / 1e3
        raise RequestFailed(error_message(error), error.code().name, retry_after_s) from error
