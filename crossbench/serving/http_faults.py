"""Why a request to somebody else's server failed, in words that say what to do."""

from __future__ import annotations

import os
from urllib.parse import urljoin, urlsplit

import aiohttp
import grpc

from crossbench.serving.client import bad_reply

ERROR_BYTES = 2000  # of the body of an error, for its message
OTHER_SERVER = "look whether target.url is the server that you mean"
# OpenSSL's X509_V_ERR_…
_CERT_HAS_EXPIRED, _SELF_SIGNED, _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH = 10, 18, 62, 64
Status = grpc.StatusCode
_STATUSES = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    408: Status.DEADLINE_EXCEEDED,
    413: Status.INVALID_ARGUMENT,
    422: Status.INVALID_ARGUMENT,
    424: Status.INTERNAL,  # TEI: the model failed
    429: Status.RESOURCE_EXHAUSTED,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}


def no_connection(error: aiohttp.ClientConnectorError) -> str:
    """Say why there is no connection, and what to do."""
    if isinstance(error, aiohttp.ClientSSLError):  # its number is not one of the system
        reason = (getattr(error.os_error, "reason", None) or str(error)).replace("_", " ").lower()
        return f"no TLS connection ({reason}): if it has no TLS, give http:// in target.url"
    number = error.errno or 0  # negative if the name is not found
    reason = os.strerror(number) if number > 0 else error.strerror or str(error)
    return (
        f"no connection ({reason}): look whether the server runs, and whether target.url is its "
        "address"
    )


def distrust(error: aiohttp.ClientConnectorCertificateError, ca: str | None) -> str:
    """Say why the server's certificate is not trusted, and what to do."""
    fault = error.certificate_error
    code = getattr(fault, "verify_code", None)
    if code == _CERT_HAS_EXPIRED:
        advice = "the server needs a new one"
    elif code in (_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH):
        advice = "give a name that is in it as the host of target.url"
    else:
        needed = "this certificate" if code == _SELF_SIGNED else "the authority that signed it"
        advice = f"give target.ca=FILE with {needed}" + ("" if ca is None else f", not {ca}")
    reason = (getattr(fault, "verify_message", "") or str(fault)).rstrip(".")
    return f"the server's certificate is refused ({reason}): {advice}"


def refusal(response: aiohttp.ClientResponse, body: bytes) -> grpc.aio.AioRpcError:
    """Return the error for a reply that is not 200."""
    status = response.status
    path = response.url.path
    text = f"HTTP {status} {response.reason or ''}".rstrip()
    if 300 <= status < 400:
        place = response.headers.get("Location", "")[:200]
        return bad_reply(
            Status.FAILED_PRECONDITION,
            f"{text}: the server redirects {path} to {place or 'nowhere'}, which is not followed: "
            f"{_moved(str(response.url), place)}",
        )
    hint = ""
    if status in (404, 405):
        hint = f". There is no {path}: give the target.api that the server has, or its target.path"
    if status in (401, 403):
        hint = ". Give target.token_file=FILE with its token"
    if status in (502, 503):
        hint = ". Look whether the server is ready"
    if status == 500:
        hint = ". The server's own log may say why"
    default = Status.INTERNAL if status >= 500 else Status.FAILED_PRECONDITION
    return bad_reply(_STATUSES.get(status, default), f"{text}: {start_of(body)}{hint}")


def _moved(asked: str, place: str) -> str:
    """Return the settings for the address to which a URL is redirected."""
    try:
        there = urlsplit(urljoin(asked, place))
    except ValueError:
        return "give the server's address as target.url"
    return f"give target.url={there.scheme}://{there.netloc} target.path={there.path or '/'}"


def start_of(content: bytes) -> str:
    """Return the start of a body as one line."""
    text = " ".join(content[:ERROR_BYTES].decode("utf-8", "replace").split())
    return (text if len(text) <= 160 else f"{text[:160]} …") or "an empty reply"
