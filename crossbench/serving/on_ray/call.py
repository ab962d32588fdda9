"""A call that Ray's proxy hands to a replica: its status, and whether its caller may come in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NoReturn, Protocol
from urllib.parse import unquote

import grpc

from crossbench.serving.bearer import ASK_FOR_IT, has_token, read_token
from crossbench.serving.retry import Metadata
from crossbench.serving.server_settings import ServerSettings
from crossbench.system.addresses import is_loopback, is_this_machine


class RayContext(Protocol):
    """What is used of Ray's `RayServegRPCContext`, which travels back to the proxy."""

    def set_code(self, code: grpc.StatusCode) -> object: ...

    def set_details(self, details: str) -> object: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> object: ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]: ...

    def peer(self) -> str: ...


class CallEnded(Exception):
    """The call has ended; its status is in its context."""


class RayCall:
    """The context of a call, as `Servicer` wants it."""

    def __init__(self, context: RayContext) -> None:
        self._context = context

    def time_remaining(self) -> None:
        """Return None: the proxy keeps the deadline, and cancels a call that exceeds it."""

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = (), /
    ) -> NoReturn:
        """End the call with a status.

        Raises:
            CallEnded: always.
        """
        self.refuse(code, details, trailing_metadata)
        raise CallEnded(f"{code.name}: {details}")

    def refuse(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> None:
        """Set the status that the proxy answers with, whatever the replica returns."""
        self._context.set_code(code)
        self._context.set_details(details)
        self._context.set_trailing_metadata(list(trailing_metadata))


class Gate:
    """Decides who may call, since Ray's proxies let everyone in.

    They listen on all addresses of their machine. If `server.host` is a loopback address, calls
    from other machines are refused here, and with `server.token_file` those without the token.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._only_from_here = is_loopback(settings.host)
        self._token = None if settings.token_file is None else read_token(settings.token_file)

    def refusal(self, context: RayContext) -> tuple[grpc.StatusCode, str] | None:
        """Return the status and the message for a call that must not come in, or None."""
        if self._only_from_here and not _is_from_here(host := peer_host(context.peer())):
            return (
                grpc.StatusCode.PERMISSION_DENIED,
                f"this server answers only calls from its own machine, and this one is from "
                f"{host}: start the server with server.host=0.0.0.0 to let other machines in",
            )
        if self._token is not None and not has_token(context.invocation_metadata(), self._token):
            return grpc.StatusCode.UNAUTHENTICATED, ASK_FOR_IT
        return None


def peer_host(peer: str) -> str:
    """Return the host in gRPC's name of a peer: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


@lru_cache(1024)
def _is_from_here(host: str) -> bool:
    return is_this_machine(host)
