"""The bearer token: read from a file, sent by clients, checked by the server for each RPC."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn, TypeAlias

import grpc

from crossbench.errors import ConfigError
from crossbench.system.secret_files import read_file

METADATA_KEY = "authorization"
_SCHEME = "Bearer "
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750
LEAST_LENGTH = 16
ASK_FOR_IT = (
    "this server wants a token, and the request has none or another one: give the client "
    "server.token_file=FILE with the token of the server, or send the metadata "
    "authorization: Bearer TOKEN"
)
# Load balancers and container platforms ask for the health of a server without credentials
OPEN_TO_ALL = "/grpc.health.v1.Health/"

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


def read_token(path: str, key: str = "server.token_file", least: int = LEAST_LENGTH) -> str:
    """Return the token in a file, without the spaces and line ends around it.

    `key` is the setting that names the file, `least` the fewest characters of a token.

    Raises:
        ConfigError: the file cannot be read, or its content is no token.
    """
    token = read_file(path, key).strip()
    if len(token) < least or not _TOKEN.fullmatch(token):
        raise ConfigError(  # the content is not shown: it may be a secret
            f"{key}={path} has no token of at least {least} letters, digits and "
            f"-._~+/: write one with python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token.decode("ascii")


def is_right(given: bytes, token: str) -> bool:
    """Return whether an HTTP header shows the token, in a time that does not depend on it.

    As HTTP has it, the scheme may be in any case.
    """
    scheme, _, shown = given.partition(b" ")
    right = hmac.compare_digest(shown.strip(), token.encode())
    return right and scheme.lower() == _SCHEME.strip().lower().encode()


def authorization(token: str) -> tuple[str, str]:
    """Return the metadata with which a client shows its token."""
    return METADATA_KEY, _SCHEME + token


def has_token(metadata: Iterable[tuple[str, str | bytes]], token: str) -> bool:
    """Return whether the metadata of a call show the token, in constant time."""
    given = b""
    for key, value in metadata:
        if key == METADATA_KEY:
            given = value if isinstance(value, bytes) else value.encode()
    return hmac.compare_digest(given, (_SCHEME + token).encode())


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses RPCs without the right token, before their message is received.

    `refused` is called with the RPC's name for each of them. The health service needs no token.
    """

    def __init__(self, token: str, refused: Callable[[str], None]) -> None:
        self._token = token
        self._refused = refused
        # Streams in both directions start without a message; clients of other kinds see no
        # difference
        self._refusal: _Handler = grpc.stream_stream_rpc_method_handler(self._refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        method = str(handler_call_details.method)
        if method.startswith(OPEN_TO_ALL):
            return await continuation(handler_call_details)
        if has_token(handler_call_details.invocation_metadata, self._token):
            return await continuation(handler_call_details)
        self._refused(method)
        return self._refusal

    @staticmethod
    async def _refuse(requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, ASK_FOR_IT)
