"""Client of other people's servers over HTTP/1.1, see `http_apis`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import grpc

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Message, Reply, Vectors, bad_reply, refuse_non_finite
from crossbench.serving.http_apis import APIS, BadReply, cosines, to_scores, to_vectors
from crossbench.serving.http_faults import (
    ERROR_BYTES,
    OTHER_SERVER,
    distrust,
    no_connection,
    refusal,
    start_of,
)
from crossbench.serving.http_page import proxy_for, trust
from crossbench.system.addresses import is_this_machine
from crossbench.types import Pair, Timing

# Servers close idle connections (uvicorn after 5 s), and a request that meets this fails
IDLE_S = 2.0
_UNTOLD = Timing(math.nan, math.nan, math.nan)
Status = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where and how requests are sent.

    `url` has no path of the API; `api` is a key of APIS; `path` replaces the API's own, `model` is
    the name that requests have, and `body` has more keys for each request. `ca` is a PEM file of
    the authorities that are trusted instead of the well-known ones.
    """

    url: str
    api: str
    path: str | None
    model: str | None
    body: Mapping[str, Any]
    token: str | None
    ca: str | None
    max_connections: int
    max_reply_bytes: int


class HttpClient:
    """An `Endpoint` of a server that speaks one of the APIs, with kept connections.

    It never sends a request again and follows no redirect. A proxy of the environment is used only
    for other machines.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings, self._api = settings, APIS[settings.api]
        self.is_local = is_this_machine(urlsplit(settings.url).hostname or "")
        self.spans_queries = self._api.ask_pairs is not None
        path = self._api.path if settings.path is None else settings.path
        self._url = settings.url.rstrip("/") + path
        self._proxy = proxy_for(settings.url)
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        settings = self._settings
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        connector = aiohttp.TCPConnector(
            limit=settings.max_connections,
            keepalive_timeout=IDLE_S,
            ssl=trust(settings.ca),
        )
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            )
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def send(self, message: Message, timeout_s: float | None = None) -> Reply | Vectors:
        """Send a request; see `Endpoint`. Tokens and stages of the reply are not known.

        Raises:
            grpc.aio.AioRpcError: the server cannot be reached, refuses or fails the request, or
                its reply cannot be used.
        """
        model = message.model or self._settings.model
        try:
            if isinstance(message, pb.EmbedRequest):
                assert self._api.ask_texts is not None, "checked with the config"
                body = self._api.ask_texts(message.texts)
                vectors = to_vectors(await self._values(body, model, len(message.texts), timeout_s))
                refuse_non_finite(vectors)
                return Vectors(vectors, _UNTOLD, None, None)
            if isinstance(message, pb.ScorePairsRequest):
                assert self._api.ask_pairs is not None, "requests keep to what the API has"
                pairs = [Pair(pair.query, pair.passage) for pair in message.pairs]
                body, count = self._api.ask_pairs(pairs), len(pairs)
            elif self._api.ask_texts is not None:
                return await self._score_by_vectors(message, model, timeout_s)
            else:
                assert self._api.ask is not None
                body, count = self._api.ask(message.query, message.passages), len(message.passages)
            scores = to_scores(await self._values(body, model, count, timeout_s))
        except BadReply as error:
            raise bad_reply(
                Status.INTERNAL,
                f"the server answered, but {error}: look whether it has "
                f"target.api={self._settings.api}",
            ) from error
        refuse_non_finite(scores)
        return Reply(scores, _UNTOLD, None, None)

    async def _score_by_vectors(
        self, message: pb.ScoreRequest, model: str | None, timeout_s: float | None
    ) -> Reply:
        """Embed query and passages in one request; the scores are the cosines."""
        texts = [message.query, *message.passages]
        assert self._api.ask_texts is not None
        body = self._api.ask_texts(texts)
        vectors = to_vectors(await self._values(body, model, len(texts), timeout_s))
        refuse_non_finite(vectors)
        return Reply(cosines(vectors), _UNTOLD, None, None)

    async def info(self) -> pb.ServerInfo:
        """Return the little that is known: the name of the model, and that it computes scores."""
        caveat = (
            f"This is not a server of crossbench (target.api={self._settings.api}): its "
            "precision, its device and its batches are not known. That it has this model is what "
            "the user says."
        )
        model = pb.ModelInfo(name=self._settings.model, computes_scores=True, caveat=caveat)
        return pb.ServerInfo(models=[model])

    async def metrics(self, timeout_s: float | None = None) -> pb.Metrics | None:
        return None

    async def reset_metrics(self) -> None:
        """Do nothing: the server has no counters of crossbench."""

    async def _values(
        self, body: dict[str, Any], model: str | None, count: int, timeout_s: float | None
    ) -> list[Any]:
        if model is not None and model != "":
            body["model"] = model
        reply = await self._post({**body, **self._settings.body}, timeout_s)
        return self._api.values(reply, count)

    async def _post(self, body: Mapping[str, Any], timeout_s: float | None) -> Any:
        """Send one request and return the JSON of its reply."""
        try:
            async with self._session.post(
                self._url,
                data=json.dumps(body).encode(),
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                if response.status != 200:
                    raise refusal(response, await _start(response))
                content = await self._content(response)
        except TimeoutError:
            within = "" if timeout_s is None else f" within {timeout_s:g} s"
            raise bad_reply(Status.DEADLINE_EXCEEDED, f"no reply{within}") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise bad_reply(Status.UNAVAILABLE, distrust(error, self._settings.ca)) from None
        except aiohttp.ClientConnectorError as error:
            raise bad_reply(Status.UNAVAILABLE, no_connection(error)) from None
        except aiohttp.ClientError as error:
            told = getattr(error, "strerror", None) or getattr(error, "message", "") or str(error)
            fault = " ".join(told.split())[:200] or type(error).__name__
            text = f"the connection broke ({fault})"
            proxy_refused = isinstance(error, aiohttp.ClientHttpProxyError)
            if isinstance(error, aiohttp.ClientResponseError) and not proxy_refused:
                text = f"the answer is not HTTP ({fault}): {OTHER_SERVER}"
            raise bad_reply(Status.UNAVAILABLE, text) from None
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            kind = response.headers.get("Content-Type", "no type")
            raise bad_reply(
                Status.INTERNAL,
                f"the server answered with {kind} instead of JSON ({start_of(content)}): "
                f"{OTHER_SERVER}, and has target.api={self._settings.api}",
            ) from None

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        """Read the body of a reply, but no more than `max_reply_bytes` of it."""
        limit = self._settings.max_reply_bytes
        content = bytearray()
        declared = response.content_length or 0
        while declared <= limit and len(content) <= limit:
            chunk = await response.content.readany()
            if not chunk:
                return bytes(content)
            content += chunk
        response.close()  # the connection too, since the rest is not read
        raise bad_reply(
            Status.INTERNAL,
            f"the reply has more than {limit:,} bytes: {OTHER_SERVER}, or give a higher "
            "target.max_reply_bytes",
        )


async def _start(response: aiohttp.ClientResponse) -> bytes:
    """Return the first part of a body, which tells why a request was refused."""
    content = bytearray()
    while len(content) < ERROR_BYTES and (chunk := await response.content.readany()):
        content += chunk
    if not response.content.at_eof():
        response.close()
    return bytes(content[:ERROR_BYTES])
