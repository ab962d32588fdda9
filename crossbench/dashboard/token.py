"""The page's token: without it no route answers."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from crossbench.errors import ConfigError

_REFUSAL = (
    "401: this dashboard asks for its token. Programs send it as 'Authorization: Bearer TOKEN'; in "
    "a browser, open /?token=TOKEN once.\n"
)


def check_token(token: str | None) -> None:
    """Check that a header can carry the token.

    Raises:
        ConfigError: it is empty, or has a space or a letter outside ASCII. The message does not
            contain it.
    """
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        fault = "has a space or a letter outside ASCII" if token else "is empty"
        raise ConfigError(
            f"dashboard.token {fault}: give ASCII letters, digits and signs, for example the "
            "output of: openssl rand -hex 32"
        )


@dataclass(frozen=True)
class Cookie:
    """The cookie that a browser shows in place of the token."""

    name: str
    value: str

    @classmethod
    def of(cls, token: str, port: int) -> Cookie:
        """The cookie of the page on `port`.

        Its name has the port, as browsers send a cookie to every port of a host. Its value is
        derived, so that a browser does not store the token.
        """
        value = hmac.new(token.encode(), b"cookie of the crossbench dashboard", sha256).hexdigest()
        return cls(f"crossbench_{port}", value)


@dataclass(frozen=True)
class TokenGate:
    """ASGI middleware: refuses every request and web socket without the token or its cookie.

    A browser gets the cookie with `/?token=TOKEN` and is sent on to a URL without the token, so
    that the token stays out of its history and of other sites' logs.
    """

    app: ASGIApp
    token: str
    port: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if scope["type"] == "http" and self._is_invitation(scope):
            await self._set_cookie(scope["scheme"] == "https")(scope, receive, send)
        elif self._is_known(connection.headers, connection.cookies):
            await self.app(scope, receive, send)
        else:
            refusal = PlainTextResponse(
                _REFUSAL, status_code=401, headers={"www-authenticate": "Bearer"}
            )
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(refusal)
            else:
                await refusal(scope, receive, send)

    def _is_known(self, headers: Headers, cookies: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self.token):
            return True
        cookie = Cookie.of(self.token, self.port)
        return _same(cookies.get(cookie.name, ""), cookie.value)

    def _is_invitation(self, scope: Scope) -> bool:
        """Whether a browser opens the page with the right token in its URL."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return _same(given[0], self.token)

    def _set_cookie(self, encrypted: bool) -> Response:
        cookie = Cookie.of(self.token, self.port)
        headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
        response = RedirectResponse("/", status_code=303, headers=headers)
        response.set_cookie(
            cookie.name, cookie.value, httponly=True, samesite="strict", secure=encrypted
        )
        return response


def _same(given: str, expected: str) -> bool:
    """Compare in a time that does not depend on how much is right."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
