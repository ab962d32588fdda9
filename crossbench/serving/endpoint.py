"""What a cell needs of the server that it measures, be it crossbench's own or somebody else's."""

from __future__ import annotations

from typing import Protocol, Self

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.client import Message, Reply, Vectors


class Endpoint(Protocol):
    """A connection to the server under test, to be used on one event loop as a context manager.

    `is_local` tells whether the server is on this machine, `spans_queries` whether one request may
    have pairs of several queries. A request that fails raises grpc.aio.AioRpcError with one of
    gRPC's statuses, whatever protocol the server speaks.
    """

    @property
    def is_local(self) -> bool: ...

    @property
    def spans_queries(self) -> bool: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def send(self, message: Message, timeout_s: float | None = None) -> Reply | Vectors:
        """Send a request and return its reply; `timeout_s` None means no limit."""
        ...

    async def info(self) -> pb.ServerInfo:
        """Return what is known about the server. It has at least one model."""
        ...

    async def metrics(self, timeout_s: float | None = None) -> pb.Metrics | None:
        """Return the server's counters, or None if it has none that are known."""
        ...

    async def reset_metrics(self) -> None:
        """Reset the server's counters, if it has any."""
        ...
