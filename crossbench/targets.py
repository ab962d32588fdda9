"""What the client drives: a server in this process, or one that already runs somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from crossbench.errors import CrossbenchError
from crossbench.serving.client import InferenceClient
from crossbench.serving.server import Server


class TargetUnreachable(CrossbenchError):
    """No server answers at the address that was given."""


class Target(Protocol):
    """Opened once before the measurement, closed once after it."""

    async def open(self, make_server: Callable[[], Server]) -> str:
        """Make the server reachable; returns its HOST:PORT."""
        ...

    async def close(self) -> None: ...


@dataclass
class InProcess:
    """Our server on the client's own event loop, on a free loopback port."""

    name: str
    _server: Server | None = field(default=None, init=False)

    async def open(self, make_server: Callable[[], Server]) -> str:
        # Loading takes seconds and must not run inside a coroutine that others wait beside
        self._server = await asyncio.to_thread(make_server)
        return await self._server.start()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop()


@dataclass(frozen=True)
class Remote:
    """A server that runs already, at `address` (HOST:PORT)."""

    name: str
    address: str
    connect_timeout_s: float

    async def open(self, make_server: Callable[[], Server]) -> str:
        async with InferenceClient(self.address) as client:
            try:
                await client.ready(self.connect_timeout_s)
            except grpc.aio.AioRpcError as error:
                raise TargetUnreachable(
                    f"no crossbench server answers at {self.address} within "
                    f"{self.connect_timeout_s:g} s ({error.code().name}): start one with "
                    "`python -m crossbench.serve`, and give the address that it prints"
                ) from error
        return self.address

    async def close(self) -> None:
        """The server is not ours to stop."""
