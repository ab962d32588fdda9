"""Who may ask: no page of another site, and nobody under a name that is not this machine's."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True)
class Guard:
    """ASGI middleware in front of everything.

    A page of another site can make a browser send requests here. Under its own name that resolves
    to this machine (DNS rebinding) it could read the answers too: such a `Host` is refused. Its
    web sockets and whatever is no plain GET are refused by where they come from.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if not is_own_host(headers.get("host", "")):
            words = f"this dashboard does not answer as {headers.get('host')!r}: use its address"
        elif not reads and is_foreign(headers):
            words = "refused: the request comes from another site's page"
        else:
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": words})
        else:
            await PlainTextResponse(words + "\n", status_code=403)(scope, receive, send)


def is_own_host(host: str) -> bool:
    """Whether a Host header names this machine: by an address, which no DNS can move, or by a
    name of its own."""
    name = host.rpartition(":")[0].strip("[]") if re.search(r":\d+$", host) else host.strip("[]")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = {socket.gethostname().lower(), "localhost"}
        return name.lower() in own or name.lower().endswith(".localhost")
    return True


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this for another site's page, or ahead of its user's decision.

    Current browsers say so (Sec-Fetch-Site); of older ones Origin or Referer must be our own
    host's. What is no browser sends none of the three.
    """
    if "prefetch" in headers.get("sec-purpose", headers.get("purpose", "")):
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    source = headers.get("origin") or headers.get("referer")
    if source is None:
        return False
    try:
        return urlsplit(source).netloc != headers.get("host")
    except ValueError:  # what is no URL is not ours either
        return True
