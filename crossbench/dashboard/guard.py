"""Access control: refuses requests from other sites' pages and for foreign host names."""

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
    """ASGI middleware in front of all routes.

    A page of another site can make a browser send requests here. If its own host name resolves to
    this machine (DNS rebinding), it could also read the responses, so such a `Host` is refused.
    Cross-site web sockets, and cross-site requests other than GET and HEAD, are refused too.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if not is_own_host(headers.get("host", "")):
            refusal = f"this dashboard is not served as {headers.get('host')!r}: use its address"
        elif not reads and is_cross_site(headers):
            refusal = "refused: the request comes from a page of another site"
        else:
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            await PlainTextResponse(refusal + "\n", status_code=403)(scope, receive, send)


def is_own_host(host: str) -> bool:
    """Whether a Host header names this machine: by an IP address, which DNS rebinding cannot use,
    or by one of its own names."""
    name = host.rpartition(":")[0].strip("[]") if re.search(r":\d+$", host) else host.strip("[]")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = {socket.gethostname().lower(), "localhost"}
        return name.lower() in own or name.lower().endswith(".localhost")
    return True


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends the request for a page of another site, or as a prefetch.

    Current browsers send Sec-Fetch-Site. For older ones, Origin or Referer must match our host.
    Clients other than browsers send none of the three headers.
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
    except ValueError:  # an invalid URL is not ours
        return True
