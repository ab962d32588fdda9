"""Read a page over HTTP, within a limit of time and size."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from crossbench.system.addresses import is_this_machine


class PageError(Exception):
    """The page cannot be read; the message says why."""


def proxy_for(url: str) -> str | None:
    """Return the environment's proxy for a URL; None for this machine, or without one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def trust(ca: str | None) -> ssl.SSLContext | bool:
    """Return aiohttp's `ssl` argument for the authorities in a PEM file; None: the well-known."""
    return True if ca is None else ssl.create_default_context(cafile=ca)


async def read_page(url: str, timeout_s: float, most_bytes: int, ca: str | None) -> str:
    """Return the text of a page. A redirect is not followed.

    `ca` is a PEM file of the authorities that are trusted instead of the well-known ones.

    Raises:
        PageError: there is no answer in time, it is not 200, or it is too large.
    """
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.get(
                url, allow_redirects=False, proxy=proxy_for(url), ssl=trust(ca)
            ) as response,
        ):
            if response.status != 200:
                raise PageError(f"HTTP {response.status} {response.reason or ''}".rstrip())
            content = bytearray()
            while chunk := await response.content.readany():
                content += chunk
                if len(content) > most_bytes:
                    response.close()
                    raise PageError(f"it has more than {most_bytes:,} bytes")
    except TimeoutError:
        raise PageError(f"no reply within {timeout_s:g} s") from None
    except aiohttp.ClientError as error:
        raise PageError(" ".join(str(error).split()) or type(error).__name__) from None
    return content.decode("utf-8", "replace")
