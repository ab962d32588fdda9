"""grpc.aio's server, protected from a request that ends it.

grpc.aio decodes the path of an unknown method in the task that accepts all calls. If the path is
not UTF-8, that task raises, and the whole server shuts down: one request would end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc
from grpc._cython import cygrpc
from grpc.aio import ServerInterceptor
from grpc.aio._server import Server as AioServer


class _Acceptor(cygrpc.AioServer):  # type: ignore[misc]
    """Answers calls of unknown methods itself, without a look at their paths.

    All methods of this server are registered, so every other call is one of an unknown method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interceptors: Sequence[ServerInterceptor],
        options: Sequence[tuple[str, int]],
        maximum_concurrent_rpcs: int,
    ) -> None:
        super().__init__(
            loop, None, (), tuple(interceptors), tuple(options), maximum_concurrent_rpcs
        )
        self._own_loop = loop
        self._refusals: set[asyncio.Task[None]] = set()

    async def _request_call(self) -> Any:
        """Wait for a call of an unknown method. Never returns one, only raises at the end."""
        unknown = cygrpc._MethodResolver([], {})
        while True:
            call = await super()._request_call()
            answer = cygrpc._handle_rpc("", unknown, (), call, self._own_loop, False)
            task = self._own_loop.create_task(
                cygrpc._schedule_rpc_coro(answer, call, self._own_loop, "")
            )
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)


def guarded_server(
    interceptors: Sequence[ServerInterceptor],
    options: Sequence[tuple[str, int]],
    maximum_concurrent_rpcs: int,
) -> grpc.aio.Server:
    """Return what grpc.aio.server() returns, protected. All methods of it must be registered."""
    server = AioServer.__new__(AioServer)
    server._loop = cygrpc.get_working_loop()
    server._server = _Acceptor(server._loop, interceptors, options, maximum_concurrent_rpcs)
    return cast("grpc.aio.Server", server)
