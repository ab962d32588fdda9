"""The RPCs of the service by name, for the servers that receive them."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

import grpc

from crossbench.serving import inference_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["Inference"]
SERVICE_NAME = _SERVICE.full_name


def rpc_handlers(rpcs: object) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return the handlers of all RPCs by name: methods of `rpcs`, which receive bytes."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in _SERVICE.methods:
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        handlers[method.name] = make(
            getattr(rpcs, method.name), response_serializer=methodcaller("SerializeToString")
        )
    return handlers
