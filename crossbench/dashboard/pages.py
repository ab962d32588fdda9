"""Bounds the number of pages, and makes a request for the page cheap.

NiceGUI builds the elements of a page for every `GET /`: 25 ms and 0.7 MB, kept for a minute if no
browser connects to them. A health check or a script that polls `/` never does. So a page to which
no browser has connected yet is served again. If two browsers get the same page, the second one to
connect is refused by NiceGUI and loads the page again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from nicegui import Client
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from crossbench.errors import ConfigError

SERVED_AGAIN_S = 5.0
CONNECT_S = 30.0  # a browser that needs longer to connect loads the page again
RETRY_S = 10
SOCKETS = "/_nicegui_ws/"


def check_max_pages(max_pages: int) -> None:
    """Check the number of pages.

    Raises:
        ConfigError: it is less than 1.
    """
    if max_pages < 1:
        raise ConfigError(
            f"dashboard.max_pages must be 1 or more, got {max_pages}: give dashboard=none for no "
            "page"
        )


@dataclass
class Pages:
    """The pages of this dashboard, and the web sockets they use; at most `limit` of each."""

    limit: int
    sockets: int = field(default=0, init=False)
    built: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _unused: Client | None = field(default=None, init=False)
    _answer: Response | None = field(default=None, init=False)
    _used: set[str] = field(default_factory=set, init=False)

    @property
    def are_full(self) -> bool:
        return len(self._used) >= self.limit

    def add(self, client: Client) -> None:
        """Register a page that is being built."""
        self._unused, self._answer = client, None
        loop = asyncio.get_running_loop()
        loop.call_later(SERVED_AGAIN_S, self._forget, client)
        loop.call_later(CONNECT_S, self._delete_unless_used, client)
        client.on_connect(lambda: self._use(client))
        client.on_delete(lambda: self._end(client))

    @property
    def answer(self) -> Response | None:
        """The answer with a page that no browser uses yet, if there is one."""
        return self._answer

    def keep(self, answer: Response) -> None:
        """Keep the answer that has the page registered last, to be given again."""
        if self._unused is not None:
            self._answer = answer

    def _use(self, client: Client) -> None:
        self._used.add(client.id)
        self._forget(client)

    def _end(self, client: Client) -> None:
        self._used.discard(client.id)
        self._forget(client)

    def _forget(self, client: Client) -> None:
        if self._unused is client:
            self._unused = self._answer = None

    def _delete_unless_used(self, client: Client) -> None:
        if client.id not in self._used and client.id in Client.instances:
            client.delete()


@dataclass(frozen=True)
class PageLimit:
    """ASGI middleware: serves `/` from `pages`, and refuses more pages or web sockets."""

    app: ASGIApp
    pages: Pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pages = self.pages
        if scope["type"] == "websocket":
            if pages.sockets >= pages.limit:
                await WebSocket(scope, receive, send).send_denial_response(self._refusal())
                return
            pages.sockets += 1
            try:
                await self.app(scope, receive, send)
            finally:
                pages.sockets -= 1
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"].startswith(SOCKETS):
            # Socket.IO's polling opens a session with each request, which nothing would bound
            refusal = PlainTextResponse("400: this page only uses web sockets\n", status_code=400)
            await refusal(scope, receive, send)
        elif scope["path"] == "/" and scope["method"] == "GET":
            async with pages.built:
                if pages.are_full:
                    answer: Response = self._refusal()
                else:
                    answer = pages.answer or await self._build(scope)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _build(self, scope: Scope) -> Response:
        # Other clients get this answer too, so no header or query of this one may change it
        kept = [(name, value) for name, value in scope["headers"] if name == b"host"]
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def collect(message: Message) -> None:
            messages.append(message)

        await self.app({**scope, "headers": kept, "query_string": b""}, receive, collect)
        body = b"".join(message.get("body", b"") for message in messages)
        answer = Response(body, messages[0]["status"])
        answer.raw_headers = list(messages[0]["headers"])
        if answer.status_code == 200:
            self.pages.keep(answer)
        return answer

    def _refusal(self) -> Response:
        return PlainTextResponse(
            f"503: {self.pages.limit} pages are open already: close one, or set a larger "
            "dashboard.max_pages\n",
            status_code=503,
            headers={"retry-after": str(RETRY_S)},
        )
