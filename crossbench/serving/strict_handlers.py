"""Registers the standard services of gRPC so that bytes that are no message are INVALID_ARGUMENT.

grpc.aio answers UNKNOWN if the message of a request cannot be decoded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from crossbench.errors import InvalidRequest
from crossbench.serving.wire import decode


@dataclass(frozen=True)
class StrictRegistry:
    """Takes the place of a server in the generated functions `add_..._to_server`."""

    server: grpc.aio.Server

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Ignore them: the same methods are registered, too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        strict = {name: _strict(handler) for name, handler in handlers.items()}
        self.server.add_registered_method_handlers(service, strict)


def _strict(handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    kind, serialize = handler.request_deserializer.__self__, handler.response_serializer

    async def refuse(context: Any, error: InvalidRequest) -> None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def answer(data: bytes, context: Any) -> Any:
        try:
            request = decode(kind, data)
        except InvalidRequest as error:
            await refuse(context, error)
        return await handler.unary_unary(request, context)

    async def watch(data: bytes, context: Any) -> None:
        try:
            request = decode(kind, data)
        except InvalidRequest as error:
            await refuse(context, error)
        await handler.unary_stream(request, context)  # Health.Watch writes to the context

    async def converse(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        async def decoded() -> AsyncIterator[Any]:
            async for data in messages:
                yield decode(kind, data)

        try:
            async for reply in handler.stream_stream(decoded(), context):
                yield reply
        except InvalidRequest as error:
            await refuse(context, error)

    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(converse, response_serializer=serialize)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(watch, response_serializer=serialize)
    return grpc.unary_unary_rpc_method_handler(answer, response_serializer=serialize)
